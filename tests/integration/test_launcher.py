"""The launcher with an engine that imports nothing: real processes, real forks."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.engine import Launch
from deployments.launcher import Launcher, Unfit
from deployments.server_process import session_members

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def until(condition, within=10.0):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


class Site:
    """A node's launchers in a short folder, and the raylet (a sleeper) that they end with."""

    def __init__(self, folder):
        self.folder = folder
        self.raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.launcher = Launcher(folder / "launchers", {**os.environ, "SECRET": "never"}, raylet=self.raylet.pid)
        self.lines = []
        self.started = []

    async def start(self, *arguments, private=(), **environment):
        launch = Launch((sys.executable, "-m", "anything", *arguments), forked_by="servers.forked_engine")
        given = {"PYTHONPATH": PATHS, "PATH": os.environ["PATH"], **environment}
        process = await self.launcher.start(launch, given, private, lambda line: self.lines.append(line.decode().rstrip()), self.folder)
        self.started.append(process)
        return process

    async def line(self, word):
        await until(lambda: any(line.startswith(word) for line in self.lines))
        return next(line for line in self.lines if line.startswith(word))

    def launchers(self):
        """The launchers' pids, by the lock that each holds as long as it lives."""
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and any(map(self.is_lock, files(entry)))]

    def is_lock(self, path):
        return path.startswith(str(self.folder / "launchers")) and path.endswith(".lock")

    def end(self):
        self.raylet.kill()
        self.raylet.wait()
        deadline = time.monotonic() + 5
        while self.launchers() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not self.launchers()


def files(entry):
    """What a process has open."""
    found = []
    with contextlib.suppress(OSError):
        for fd in (entry / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(fd))
    return found


@pytest.fixture
async def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("l"))
    yield made
    for process in made.started:
        await process.kill()
    made.end()


async def test_a_server_is_a_fork_with_its_own_environment_and_folder(site):
    process = await site.start("tell", "--port", "1", OMP_NUM_THREADS="2", MINE="1", SECRET_TOKEN="x")
    await process.exited.wait()
    assert process.code == 0
    environment = ["MINE", "OMP_NUM_THREADS", "PATH", "PYTHONPATH", "SECRET_TOKEN"]
    assert site.lines == [f"tells True 2 {site.folder} {environment} ['--port', '1']"]


async def test_launcher_itself_holds_no_variable_that_it_does_not_need(site):
    await site.start("tell", SECRET_TOKEN="x")
    await until(lambda: len(site.launchers()) == 1)
    (pid,) = site.launchers()
    names = {pair.partition(b"=")[0].decode() for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
    assert not {"SECRET", "SECRET_TOKEN"} & names
    assert "PYTHONPATH" in names


@pytest.mark.parametrize(
    ("arguments", "code", "said"), [(["exit", "7"], 7, ""), (["usage"], 1, "usage: none"), (["raise"], 1, "ValueError: as told")]
)
async def test_exit_code_and_last_words_arrive(site, arguments, code, said):
    process = await site.start(*arguments)
    await process.exited.wait()
    assert process.code == code
    assert said in "\n".join(site.lines)


async def test_stop_leaves_nothing_of_the_server(site):
    process = await site.start("serve")
    _, server, child, sockets = (await site.line("serves")).split()
    await process.stop(grace_s=5)
    assert not alive(int(server))
    assert not alive(int(child))
    assert process.code == 128 + signal.SIGTERM
    assert sockets == "0", "the server holds the launcher's socket or its own lifeline open"


async def test_one_launcher_serves_every_start_with_the_same_frozen_environment(site):
    await asyncio.gather(*(site.start("serve", OMP_NUM_THREADS=str(number)) for number in range(1, 4)))
    assert len(site.launchers()) == 1
    await site.start("serve", VLLM_USE_SOMETHING="1")
    assert len(site.launchers()) == 2
    with pytest.raises(Unfit, match="2 launchers with another environment"):
        await site.start("serve", VLLM_USE_SOMETHING="2")


async def test_start_waits_for_a_launcher_that_is_still_importing(site):
    began = time.monotonic()
    await asyncio.gather(*(site.start("serve", VLLM_TEST_IMPORTS_S="1") for _ in range(2)))
    assert time.monotonic() - began >= 1
    assert len(site.launchers()) == 1


async def test_servers_outlive_their_launcher_and_the_next_start_makes_a_new_one(site):
    first = await site.start("serve")
    server = int((await site.line("serves")).split()[1])
    (old,) = site.launchers()
    os.kill(old, signal.SIGKILL)
    await until(lambda: not alive(old))
    assert alive(server)
    assert not first.exited.is_set()
    await site.start("serve")
    assert site.launchers() != [old]
    await first.stop(grace_s=5)
    assert first.code == 128 + signal.SIGTERM
    assert not alive(server)


async def test_server_dies_when_its_supervisor_is_gone(site):
    process = await site.start("serve")
    server = int((await site.line("serves")).split()[1])
    process._cord.shutdown(2)  # what the kernel does for a supervisor that is killed
    await until(lambda: not alive(server))
    assert session_members(process.pid) == []


async def test_server_is_cleared_when_its_lifeline_process_is_killed(site):
    process = await site.start("serve")
    server = int((await site.line("serves")).split()[1])
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.wait_for(process.exited.wait(), 10)
    assert process.code == 128 + signal.SIGKILL
    assert not alive(server)


async def test_launcher_ends_with_its_raylet_and_without_its_servers(site):
    process = await site.start("serve")
    (launcher,) = site.launchers()
    site.raylet.kill()
    site.raylet.wait()
    await until(lambda: not alive(launcher))
    assert not process.exited.is_set()


@pytest.mark.parametrize(("variable", "why"), [("VLLM_TEST_TOUCHED", "has touched an accelerator"), ("VLLM_TEST_THREAD", "has 2 threads")])
async def test_launcher_that_must_not_fork_refuses(site, variable, why):
    with pytest.raises(Unfit, match=why):
        await site.start("serve", **{variable: "1"})


async def test_launcher_that_cannot_import_its_engine_is_told_once_and_not_tried_again(site):
    with pytest.raises(Unfit, match="could not be started"):
        await site.start("serve", VLLM_TEST_FAILS="1")
    (log,) = (site.folder / "launchers").glob("*.log")
    assert log.read_text().count("RuntimeError: no such engine") == 1
    with pytest.raises(Unfit, match="could not be started"):
        await site.start("serve", VLLM_TEST_FAILS="1")
    assert log.read_text().count("RuntimeError: no such engine") == 1


async def test_launcher_that_is_killed_while_it_imports_keeps_nobody_waiting(site):
    starting = asyncio.create_task(site.start("serve", VLLM_TEST_IMPORTS_S="600"))
    await until(lambda: len(site.launchers()) == 1)
    os.kill(site.launchers()[0], signal.SIGKILL)
    with pytest.raises(Unfit, match="ended while it was importing"):
        await asyncio.wait_for(starting, 10)


async def test_secret_that_a_library_would_read_at_import_keeps_out_of_the_launcher(site):
    with pytest.raises(Unfit, match="HF_HOME is a secret"):
        await site.start("serve", private={"HF_HOME"}, HF_HOME="/secret")
    assert site.launchers() == []


async def test_junk_on_the_socket_is_answered_and_forgotten(site):
    process = await site.start("serve")
    (path,) = (site.folder / "launchers").glob("*.sock")
    for junk in (b"\n", b"{}\n", b"\xff" * 10):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(junk)
        writer.write_eof()
        assert (await reader.read()).startswith(b"refused: ")
        writer.close()
        await writer.wait_closed()
    await site.start("serve")
    assert not process.exited.is_set()
