"""One engine server as a process tree under a lifeline: start, output, exit, stop. Linux only.

Two threads read the output and wait for the exit, since the event loop (Serve's) is not ours to choose.
Knows nothing of engines, health or requests; draining before `stop` is the supervisor's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from deployments import lifeline

LINE_LIMIT = 1 << 16
"""Longest line of output that is taken whole, in bytes; what a longer one has more comes as further lines."""
OUTPUT_GRACE_S = 5.0


class ServerProcess:
    """A running server, made by `start`. When `exited` is set no process of it is left, and `code` is its exit code."""

    def __init__(self, process: subprocess.Popen[bytes], keep: int, on_line: Callable[[bytes], None]) -> None:
        self.pid = process.pid
        """Of the lifeline process, which leads the server's session."""
        self.exited = asyncio.Event()
        self.code: int | None = None
        self._process = process
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._reader = threading.Thread(target=self._read, args=(process.stdout, on_line), daemon=True, name=f"output-{self.pid}")
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True, name=f"exit-{self.pid}").start()

    @classmethod
    def start(cls, command: Sequence[str], environment: Mapping[str, str], on_line: Callable[[bytes], None], folder: Path) -> ServerProcess:
        """Starts `command` in `folder` with exactly `environment`. Its output goes line by line to `on_line`, on the event loop."""
        end, keep = os.pipe()  # neither is inheritable, so no other child can hold the lifeline open; pass_fds passes `end`
        try:
            process = subprocess.Popen(
                (sys.executable, "-I", "-S", lifeline.__file__, str(end), *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                pass_fds=(end,),
                start_new_session=True,
            )
        except BaseException:
            os.close(keep)
            raise
        finally:
            os.close(end)
        return cls(process, keep, on_line)

    def terminate(self) -> None:
        """Asks the server to exit (SIGTERM)."""
        if not self.exited.is_set():
            self._process.send_signal(signal.SIGTERM)

    async def stop(self, grace_s: float) -> None:
        """Asks the server to exit; after `grace_s` ends it by force. Returns when no process of it is left."""
        self.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), grace_s)
        await self.kill()

    async def kill(self) -> None:
        """Ends the server by force. Returns when no process of it is left."""
        self._cut()
        await self.exited.wait()

    def _cut(self) -> None:
        if self._keep >= 0:
            os.close(self._keep)
            self._keep = -1

    def _wait(self) -> None:
        code = self._process.wait()
        if code < 0:  # the lifeline process itself was killed: nobody else cleans up
            _clear_session(self.pid)
        self._reader.join(OUTPUT_GRACE_S)
        self._on_loop(self._finish, code)

    def _finish(self, code: int) -> None:
        self._cut()
        self.code = code if code >= 0 else 128 - code
        self.exited.set()

    def _read(self, stream: IO[bytes], on_line: Callable[[bytes], None]) -> None:
        with stream:
            while line := stream.readline(LINE_LIMIT):
                self._on_loop(on_line, line)

    def _on_loop(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is listening any more
            self._loop.call_soon_threadsafe(callback, *args)


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
