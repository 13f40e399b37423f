"""Runs a server so that it cannot outlive its supervisor, however that dies: `python -I -S lifeline.py FD COMMAND...`.

Leads the server's session, adopts every orphan of it, and ends all of it with SIGKILL when the supervisor's end of the socket
FD closes (the supervisor is gone) or the server has exited. `TERMINATE` on the socket becomes a SIGTERM to the server. The
last thing written to the socket is the server's exit code, or 128 + signal, as a line: then no process of the server is left.
Linux only; nothing but the standard library, one thread, so that it starts in no time (or is forked: see
`deployments.launcher_process`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

TERMINATE = b"T"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def run(lifeline: int, serve: Callable[[], None]) -> int:
    """Runs `serve` in a child process, to its end or the lifeline's; returns the exit code. `serve` must not return."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only to be woken by
    os.set_inheritable(lifeline, False)
    server = _fork(serve, os.getpid(), (lifeline, wake, woken))
    signal.signal(signal.SIGTERM, lambda *_: _kill(server, signal.SIGTERM))
    code: int | None = None
    while code is None:
        ready, _, _ = select.select([lifeline, wake], [], [])
        if lifeline in ready:
            said = _read(lifeline)
            if not said:
                code = 128 + signal.SIGKILL
            elif TERMINATE in said:
                _kill(server, signal.SIGTERM)
        if wake in ready:
            _drain(wake)
            code = next((status for pid, status in _reap() if pid == server), code)
    _kill_all(wake)
    with contextlib.suppress(OSError):  # nobody is listening any more
        os.write(lifeline, f"{code}\n".encode())
    return code


def end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process when its parent `parent` dies; at once, if it is dead already."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def children(parent: int) -> list[int]:
    """The processes whose parent is `parent`, zombies included."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:  # may be gone by now
                if int(stat.read().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry))
    return found


def execute(command: Sequence[str]) -> None:
    """Becomes `command`."""
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is wanted
    except OSError as exc:
        os.write(2, f"cannot start {command[0]}: {exc.strerror}\n".encode())


def _fork(serve: Callable[[], None], parent: int, ours: Sequence[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in ours:
            os.close(fd)
        end_with_parent(parent)
        serve()
    finally:
        os._exit(127)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 64)
    except ConnectionError:
        return b""


def _drain(wake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wake, 1024)


def _reap() -> Iterator[tuple[int, int]]:
    """Collects every exited child, adopted ones too: (pid, exit code or 128 + signal)."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            yield pid, code if code >= 0 else 128 - code


def _kill_all(wake: int) -> None:
    """Kills what is left. Killing a process makes its children ours, so this goes on until there are none."""
    while left := children(os.getpid()):
        for pid in left:
            _kill(pid, signal.SIGKILL)
        select.select([wake], [], [], 1.0)
        _drain(wake)
        for _ in _reap():
            pass


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), lambda: execute(sys.argv[2:])))
