"""A real platform for tests: its own home, ports and Ray session, started and stopped through the commands a person types."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(condition, timeout=60.0, every=0.05, what="the condition"):
    """Calls `condition` until it returns something true, which is returned; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s; last seen: {found!r}")
        time.sleep(every)


@dataclasses.dataclass
class Platform:
    """`moorage up` in a home of its own. Everything goes through its commands and its port, as for a person."""

    home: Path
    port: int
    environment: dict

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self):
        return json.loads((self.home / "credentials").read_text())

    @property
    def token(self):
        return self.credentials["token"]

    def command(self, *words, check=True, timeout=300, **options):
        """Run `moorage ...`; returns the completed process with its text."""
        line = [sys.executable, "-m", "cluster.cli.main", *map(str, words)]
        done = subprocess.run(line, env=self.environment, cwd=ROOT, text=True, capture_output=True, timeout=timeout, check=False, **options)
        if check and done.returncode != 0:
            pytest.fail(f"moorage {' '.join(map(str, words))} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self):
        self.command("up")

    def down(self):
        self.command("down", check=False)

    def client(self, **options):
        """An httpx client of the one port, with the platform key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.token}"}, timeout=60, **options)

    def fetch(self, path, method="GET", body=None, **options):
        """One request of any path with the platform key; returns the response."""
        with self.client() as client:
            return client.request(method, path, json=body, **options)

    def manage(self, method, path, body=None, **options):
        """A call of the management API below /manage/v2/endpoint/admin; returns the response."""
        with self.client() as client:
            return client.request(method, f"/manage/v2/endpoint/admin{path}", json=body, **options)

    def create(self, name, *, echo=None, scaling=None, wait=True, **fields):
        """Create an endpoint of the echo engine (or what `fields` say) and wait until it runs; returns the answer's JSON."""
        body = {"name": name, "model": {"image": {"echo": echo or {}}}, "compute": {"scaling": scaling or {}}, **fields}
        answer = self.manage("POST", "", body)
        assert answer.status_code < 300, answer.text
        if wait:
            self.wait(name)
        return answer.json()

    def get(self, name):
        answer = self.manage("GET", f"/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, name):
        return self.get(name)["status"]

    def wait(self, name, state="running", timeout=90):
        """Wait for a state; a failure on the way is shown at once."""

        def reached():
            status = self.status(name)
            if status["state"] in {"failed", "updateFailed"} - {state}:
                pytest.fail(f"{name} ended as {status}")
            return status if status["state"] == state else None

        return until(reached, timeout, what=f"{name} {state}")

    def delete(self, name):
        self.manage("DELETE", f"/{name}")
        until(lambda: self.manage("GET", f"/{name}").status_code == 404, what=f"{name} gone")

    def chat(self, name, text="hello there", key=None, timeout=60, **fields):
        """One chat request on the endpoint's own URL; returns the response."""
        body = {"model": name, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {key or self.token}"}
        return httpx.post(f"{self.url}/endpoints/admin/{name}/v1/chat/completions", json=body, headers=headers, timeout=timeout)

    def processes(self):
        """pid -> command line of every process of this platform: those that name its home, and all their descendants.

        Ray's workers rename themselves and thereby overwrite their environment, so they are found as raylet's children.
        """
        mark, parents, lines, found = str(self.home).encode(), {}, {}, set()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError, IndexError):
                pid = int(folder.name)
                status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if status[0] == "Z":
                    continue
                parents[pid] = int(status[1])
                lines[pid] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if mark in (folder / "environ").read_bytes() or mark.decode() in lines[pid]:
                    found.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return {pid: lines[pid] for pid in found}

    def kill(self, *words, most=1000):
        """SIGKILL the processes of this platform whose command line contains all `words` (at most `most`); returns the pids."""
        pids = sorted(pid for pid, line in self.processes().items() if all(word in line for word in words))[:most]
        assert pids, f"no process with {words} among {sorted(self.processes().values())}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def kill_everything(self):
        """Power cut: SIGKILL everything at once, until nothing is left."""

        def none_left():
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not self.processes()

        until(none_left, 30, what="every process dead")


@contextlib.contextmanager
def running_platform(variables=None, **settings):
    """A platform with `settings` (MOORAGE_* without the prefix), up on entry, killed and cleaned up on exit.

    `variables` are other variables of its environment.
    """
    home = Path(tempfile.mkdtemp(prefix="moor", dir="/tmp"))
    names = ("port", "serve_port", "dashboard_port", "ray_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    given = {"home": home, "host": "127.0.0.1", "num_cpus": 64, **ports, **settings}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE_", "RAY_"))}
    environment = kept | {f"MOORAGE_{name.upper()}": str(value) for name, value in given.items()} | (variables or {})
    platform = Platform(home, ports["port"], environment)
    try:
        platform.up()
        yield platform
    finally:
        if os.environ.get("MOORAGE_TEST_KEEP_LOGS"):
            keep_logs(platform, Path(os.environ["MOORAGE_TEST_KEEP_LOGS"]))
        if "container_runtime" in settings:
            platform.down()  # containers are no children of the platform
        platform.kill_everything()
        shutil.rmtree(home, ignore_errors=True)


def keep_logs(platform, folder):
    """Copies what the platform wrote, for looking at after a failure."""
    for path in (*platform.home.rglob("*.log*"), *platform.home.rglob("*.out"), *platform.home.rglob("*.err")):
        if path.is_file():
            target = folder / platform.home.name / path.relative_to(platform.home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
