"""The server process under its lifeline, with small real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from deployments.server_process import ServerProcess, session_members

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={escape})
print("child", child.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(*pids: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


class Output:
    def __init__(self):
        self.lines = []
        self.changed = asyncio.Event()

    def __call__(self, line):
        self.lines.append(line.decode().rstrip("\n"))
        self.changed.set()

    async def line(self, start):
        async with asyncio.timeout(20):
            while True:
                found = next((line for line in self.lines if line.startswith(start)), None)
                if found is not None:
                    return found
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def output():
    return Output()


@pytest.fixture
async def start(output, tmp_path):
    started = []

    def start(code):
        process = ServerProcess.start([sys.executable, "-c", textwrap.dedent(code)], dict(os.environ), output, tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        await process.kill()


async def test_output_of_both_streams_arrives_line_by_line(start, output):
    process = start("import sys; print('one', flush=True); print('two', file=sys.stderr, flush=True); print('no newline', end='')")
    await process.exited.wait()
    assert output.lines == ["one", "two", "no newline"]
    assert process.code == 0


async def test_exit_code_of_the_server_is_told(start):
    process = start("raise SystemExit(7)")
    await process.exited.wait()
    assert process.code == 7


async def test_death_by_signal_is_told_as_128_and_the_signal(start):
    process = start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    await process.exited.wait()
    assert process.code == 128 + signal.SIGSEGV


async def test_command_that_does_not_exist_ends_with_127(output, tmp_path):
    process = ServerProcess.start(["/no/such/program"], dict(os.environ), output, tmp_path)
    await process.exited.wait()
    assert process.code == 127
    assert "cannot start /no/such/program" in output.lines[0]


async def test_sigterm_reaches_the_server_which_may_end_in_its_own_way(start, output):
    process = start("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        print("ready", flush=True)
        time.sleep(600)
    """)
    await output.line("ready")
    await process.stop(grace_s=10)
    assert process.code == 3


async def test_server_that_ignores_sigterm_is_killed_after_the_grace(start, output):
    process = start("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(600)
    """)
    await output.line("ready")
    await process.stop(grace_s=0.2)
    assert process.code == 128 + signal.SIGKILL


@pytest.mark.parametrize("escape", [False, True], ids=["same session", "own session"])
async def test_no_child_of_the_server_is_left_when_stop_returns(start, output, escape):
    process = start(FAMILY.format(escape=escape))
    child = int((await output.line("child")).split()[1])
    await process.stop(grace_s=5)
    assert not alive(child)
    assert session_members(process.pid) == []


async def test_orphans_go_when_the_server_itself_is_killed(start, output):
    process = start(FAMILY.format(escape=True))
    child = int((await output.line("child")).split()[1])
    (server,) = [pid for pid in session_members(process.pid) if pid != process.pid]
    os.kill(server, signal.SIGKILL)
    async with asyncio.timeout(5):
        await process.exited.wait()
    assert process.code == 128 + signal.SIGKILL
    assert not alive(child)


async def test_session_is_cleared_when_the_lifeline_process_itself_is_killed(start, output):
    process = start(FAMILY.format(escape=False))
    child = int((await output.line("child")).split()[1])
    os.kill(process.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        await process.exited.wait()
    assert not alive(child)
    assert session_members(process.pid) == []


async def test_server_and_its_children_die_with_a_supervisor_that_is_killed(tmp_path):
    supervisor = textwrap.dedent(f"""
        import asyncio, os, sys
        from pathlib import Path
        from deployments.server_process import ServerProcess

        async def main():
            command = [sys.executable, "-c", {FAMILY.format(escape=True)!r}]
            process = ServerProcess.start(command, dict(os.environ), lambda line: print(line.decode(), process.pid, flush=True), Path("."))
            await process.exited.wait()

        asyncio.run(main())
    """)
    with await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", supervisor], stdout=subprocess.PIPE, text=True) as running:
        child = int(running.stdout.readline().split()[1])
        leader = int(running.stdout.readline())
        members = session_members(leader)
        assert len(members) == 2
        assert alive(child)
        running.send_signal(signal.SIGKILL)
        assert await gone(child, *members)
