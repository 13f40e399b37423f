"""Our server round a program of the user's: runs the program, and lets the edge in to it through the guard.

The program's output is this process's own, so that it becomes the replica's log. What kind of program it is (a command, a
container) is said by a `Program`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Protocol

import uvicorn

from deployments import guard, reverse_proxy
from deployments.engine import PROGRAM_PREFIX

KEEP_ALIVE_S = 75
"""Longer than the edge keeps idle connections, so that the edge closes them."""
LAST_WORDS_S = 1
"""For answers under way when the program has ended: they break at once."""
CANNOT_START = 127


class Program(Protocol):
    """What is run."""

    async def run(self, port: int) -> int:
        """Runs it with its server at 127.0.0.1:`port`; returns its exit code. Says on standard error why it cannot be started."""
        ...

    async def stop(self) -> None:
        """Asks it to end; returns when it has ended, or does not want to. `run` returns then, or is cancelled."""
        ...


async def serve(program: Program, host: str, port: int, *, health_route: str, max_concurrency: int) -> int:
    """Until the program ends or SIGTERM comes; returns the exit code of this process."""
    private = free_port()
    proxy = reverse_proxy.ReverseProxy(private, health_route, max_concurrency)
    server = uvicorn.Server(_config(guard.Guard(proxy, own_routes=True, program=True), host, port))
    signal.signal(signal.SIGTERM, lambda *_: None)  # the server puts its own handler over this one, and raises the signal again at its end
    serving = asyncio.create_task(server.serve())
    running = asyncio.create_task(program.run(private))
    try:
        await asyncio.wait((serving, running), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await program.stop()
            return 0
        say(f"the program ended with code {running.result()}")
        server.should_exit = True
        await serving
        return running.result() or 1  # a server has no reason to end
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await proxy.close()


def program_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the endpoint says: the variables that came under PROGRAM_PREFIX, under their own names."""
    return {name.removeprefix(PROGRAM_PREFIX): value for name, value in environment.items() if name.startswith(PROGRAM_PREFIX)}


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago. Not held: not every program can take over a port that is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(line: str) -> None:
    """A line of ours in the replica's log (see deployments.diagnosis for what is read from them)."""
    sys.stderr.write(f"moorage: {line}\n")
    sys.stderr.flush()


async def ended(process: asyncio.subprocess.Process) -> int:
    """The exit code, 128 + signal for one that was killed."""
    code = await process.wait()
    return code if code >= 0 else 128 - code


async def start(words: tuple[str, ...], environment: Mapping[str, str]) -> asyncio.subprocess.Process | None:
    """Starts a program with this process's output. None, with a word in the log, where it cannot be."""
    try:
        return await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, env=dict(environment))
    except (OSError, ValueError) as exc:
        say(f"cannot start {words[0]}: {(exc.strerror if isinstance(exc, OSError) else None) or exc}")
        return None


def _config(app: guard.Guard, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host,
        port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a command sees of this process's own environment: nothing of Moorage's, and no way into Moorage's own modules."""
    kept = {name: value for name, value in environment.items() if not name.startswith("MOORAGE_") and name != "PYTHONPATH"}
    others = environment.get("PYTHONPATH", "").partition(os.pathsep)[2]  # the first one is ours
    return {**kept, "PYTHONPATH": others} if others else kept
