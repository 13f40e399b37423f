"""One engine server as a process tree under a lifeline: start, output, exit, stop. Linux only.

Two threads read the output and wait for the exit, since the event loop (Serve's) is not ours to choose.
Knows nothing of engines, health or requests; draining before `stop` is the supervisor's business. How a server is forked
instead of started is `deployments.launcher`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from deployments import lifeline

OnLine = Callable[[bytes], None]
"""Told each line of a server's output, on the event loop."""
LINE_LIMIT = 1 << 16
"""Longest line of output that is taken whole, in bytes; what a longer one has more comes as further lines."""
OUTPUT_GRACE_S = 5.0


class ServerProcess:
    """A running server. When `exited` is set no process of it is left, and `code` is its exit code."""

    def __init__(
        self, pid: int, cord: socket.socket, output: IO[bytes], on_line: OnLine, reap: Callable[[], object] = lambda: None
    ) -> None:
        """`cord` is the supervisor's end of the lifeline; `reap` collects the lifeline process where it is a child of this one."""
        self.pid = pid
        """Of the lifeline process, which leads the server's session."""
        self.exited = asyncio.Event()
        self.code: int | None = None
        self._cord = cord
        self._reap = reap
        self._loop = asyncio.get_running_loop()
        self._reader = threading.Thread(target=self._read, args=(output, on_line), daemon=True, name=f"output-{pid}")
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True, name=f"exit-{pid}").start()

    @classmethod
    def start(cls, command: Sequence[str], environment: Mapping[str, str], on_line: OnLine, folder: Path) -> ServerProcess:
        """Starts `command` in `folder` with exactly `environment`. Its output goes line by line to `on_line`."""
        cord, end = socket.socketpair()  # neither is inheritable, so no other child can hold the lifeline open
        with end, contextlib.ExitStack() as opened:
            opened.enter_context(cord)
            process = subprocess.Popen(
                (sys.executable, "-I", "-S", lifeline.__file__, str(end.fileno()), *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                pass_fds=(end.fileno(),),
                start_new_session=True,
            )
            opened.pop_all()
        assert process.stdout is not None
        return cls(process.pid, cord, process.stdout, on_line, process.wait)

    def terminate(self) -> None:
        """Asks the server to exit (SIGTERM)."""
        if not self.exited.is_set():
            with contextlib.suppress(OSError):  # it is gone already
                self._cord.send(lifeline.TERMINATE)

    async def stop(self, grace_s: float) -> None:
        """Asks the server to exit; after `grace_s` ends it by force. Returns when no process of it is left."""
        self.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), grace_s)
        await self.kill()

    async def kill(self) -> None:
        """Ends the server by force. Returns when no process of it is left."""
        with contextlib.suppress(OSError):  # it is gone already
            self._cord.shutdown(socket.SHUT_WR)
        await self.exited.wait()

    def _wait(self) -> None:
        code = read_line(self._cord)
        self._reap()
        if code is None:  # the lifeline process itself was killed: nobody else cleans up
            _clear_session(self.pid)
        self._reader.join(OUTPUT_GRACE_S)
        self._on_loop(self._finish, 128 + signal.SIGKILL if code is None else int(code))

    def _finish(self, code: int) -> None:
        self._cord.close()
        self.code = code
        self.exited.set()

    def _read(self, stream: IO[bytes], on_line: OnLine) -> None:
        with stream:
            while line := stream.readline(LINE_LIMIT):
                self._on_loop(on_line, line)

    def _on_loop(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is listening any more
            self._loop.call_soon_threadsafe(callback, *args)


def read_line(connection: socket.socket) -> str | None:
    """The next line of a socket; None when it ends before. Blocks."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            more = connection.recv(1)
        except ConnectionError:
            more = b""
        if not more:
            return None
        line += more
    return line.decode().rstrip("\n")


def session_members(leader: int) -> list[int]:
    """The living processes of the session that `leader` leads; zombies do not count."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:  # may be gone by now
                state, _, _, session = stat.read().rpartition(")")[2].split()[:4]
                if int(session) == leader and state != "Z":
                    found.append(int(entry))
    return found


def _clear_session(leader: int) -> None:
    while members := session_members(leader):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
