"""A whole platform for the figures that need one: `moorage up` in a home of its own, driven as a user would."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import arms, cpu
from cluster import home
from deployments import launcher


@dataclasses.dataclass
class Platform:
    """A running platform; `key` is the operator's."""

    home: Path
    port: int
    environment: dict[str, str]
    key: str = ""

    @property
    def url(self) -> str:
        """Of its one port."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, *words: str) -> None:
        """`moorage ...`. Raises CalledProcessError."""
        subprocess.run(
            [sys.executable, "-m", "cluster.cli.main", *words], env=self.environment, cwd=arms.ROOT, check=True, capture_output=True
        )

    def client(self, key: str | None = None) -> httpx.Client:
        """With the operator's key, or another one, or none ("")."""
        bearer = {"authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {}
        return httpx.Client(base_url=self.url, headers=bearer, timeout=120)

    def create(self, client: httpx.Client, name: str, model: dict[str, Any], **scaling: Any) -> None:
        """An endpoint, not waited for. Raises HTTPStatusError."""
        body = {"name": name, "model": model, "compute": {"scaling": scaling}}
        client.post("/manage/v2/endpoint/admin", json=body).raise_for_status()

    def status(self, client: httpx.Client, name: str) -> dict[str, Any]:
        """An endpoint's."""
        found: dict[str, Any] = client.get(f"/manage/v2/endpoint/admin/{name}").raise_for_status().json()["status"]
        return found

    def wait(self, client: httpx.Client, name: str, state: str = "running", limit_s: float = 300) -> None:
        """Until an endpoint is in a state."""
        until(lambda: self.status(client, name)["state"] == state, limit_s)

    def processes(self) -> dict[int, str]:
        """pid -> command line of every process of this platform."""
        mark = f"{launcher.MARK}={home.Home(self.home).mark}".encode()  # servers that the launcher forked name nothing else of it
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def of(self, *words: str) -> set[int]:
        """The processes whose command line has one of these words, with their descendants."""
        return cpu.tree(pid for pid, line in self.processes().items() if any(word in line for word in words))


def until(condition: Callable[[], object], limit_s: float = 60, every_s: float = 0.05) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(every_s)


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Platform]:
    """Up on entry, down and gone on exit."""
    folder = Path(tempfile.mkdtemp(prefix="mw"))
    first = arms.free_port(4)
    ports = {name: first + number for number, name in enumerate(("port", "serve_port", "dashboard_port", "ray_port"))}
    given = {"home": folder, "host": "127.0.0.1", "num_cpus": 64, **ports, **settings}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE_", "RAY_"))}
    platform = Platform(folder, ports["port"], kept | {f"MOORAGE_{name.upper()}": str(value) for name, value in given.items()})
    try:
        platform.command("up")
        platform.key = json.loads((folder / "credentials").read_text())["token"]
        yield platform
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            platform.command("down")
        shutil.rmtree(folder, ignore_errors=True)
