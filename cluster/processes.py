"""Processes of this machine as /proc shows them: found by a mark in their environment, ended without hitting a stranger.

A process is known by its id *and* its start time, so that an id used again is not mistaken for it. What the marks mean is
left to `cluster.ray_node`.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")
POLL_S = 0.05


@dataclasses.dataclass(frozen=True)
class Process:
    """One process; `started` is in clock ticks since boot, `title` what it calls itself."""

    pid: int
    started: int
    title: str = ""


def find(pid: int) -> Process | None:
    """The living process of that id; None for none, a zombie or one that is not ours to see."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        title = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, ValueError):
        return None
    state, started = fields[0], int(fields[19])
    return None if state in "ZX" else Process(pid, started, title)


def marked(variable: str, value: str) -> list[Process]:
    """Processes that were started with this environment variable, except the one that asks."""
    mark = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        process = find(pid) if mark in environment.split(b"\0") else None
        if process is not None:
            found.append(process)
    return found


def alive(process: Process) -> bool:
    """Whether this very process still runs."""
    now = find(process.pid)
    return now is not None and now.started == process.started


def end(processes: Iterable[Process], grace_s: float, clock: Callable[[], float] = time.monotonic) -> list[Process]:
    """Ask each to end, kill what is left after `grace_s` seconds, and return what would not die. Blocks until they are gone."""
    left = [process for process in processes if alive(process)]
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        for process in left:
            _signal(process, number)
        left = _wait_gone(left, clock() + patience, clock)
    return left


def _pids() -> list[int]:
    me = os.getpid()
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and int(entry.name) != me]


def _signal(process: Process, number: signal.Signals) -> None:
    """By a handle opened before the identity check, so that the id cannot change hands in between."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if alive(process):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _wait_gone(processes: list[Process], deadline: float, clock: Callable[[], float]) -> list[Process]:
    left = [process for process in processes if alive(process)]
    while left and clock() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if alive(process)]
    return left
