"""The launcher: imports an engine once and forks its servers, which then start in seconds.

`python -m deployments.launcher_process ENGINE FOLDER KEY RAYLET`, where ENGINE is a module with what `Engine` says. One per
node and key (`deployments.launcher` says what is in a key and asks for servers). Has one thread, touches no accelerator and
builds nothing of an engine, or a fork would be born broken; that is checked before each fork. Servers go on when the launcher
dies; it ends when the process RAYLET (this node's raylet; 0 = none) does.

A request is one connection to FOLDER/KEY.sock: a line of JSON `{"arguments": [...], "environment": {...}, "folder": "..."}`
together with a file descriptor for the server's output. The answer is a line with the pid of the lifeline process, or
`refused: why`; from then on the connection is the lifeline (see `deployments.lifeline`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from deployments import lifeline

REQUEST_LIMIT = 4 << 20
REQUEST_TIMEOUT_S = 5.0


class Engine(Protocol):
    """What the launcher needs of an engine, which is a module; deployments.vllm_api is one."""

    __name__: str

    def preload(self) -> list[str]:
        """Imports what servers need; returns what could not be imported."""
        ...

    def accelerator_touched(self) -> bool:
        """Whether this process has initialised an accelerator."""
        ...

    def serve_in_fork(self, threads: int | None) -> None:
        """Runs a server with the arguments in `sys.argv` and so many threads for computing."""
        ...


@dataclasses.dataclass(frozen=True)
class Request:
    """A server to fork."""

    arguments: list[str]
    environment: Mapping[str, str]
    folder: str
    output: int


def main() -> int:
    """Imports, listens, forks until the raylet ends."""
    engine = cast("Engine", importlib.import_module(sys.argv[1]))
    folder, key, raylet = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    lock = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0  # another one is there, or about to be
    detach()
    failure = folder / f"{key}.failed"
    failure.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        missing = engine.preload()
        say(f"imported the engine in {time.monotonic() - began:.1f} s" + "".join(f"; without {name}" for name in missing))
        gc.collect()
        gc.freeze()  # a collection in a fork would copy what it only looks at
        serve(engine, listener(folder / f"{key}.sock"), watch(raylet), lock)
    except Exception:  # whatever the engine raises is what the replicas are told; raised again
        failure.write_text(traceback.format_exc())
        raise
    finally:
        (folder / f"{key}.sock").unlink(missing_ok=True)
    return 0


def detach() -> None:
    """Out of the session and the family of the replica that has started this process, which may end long before."""
    if os.fork():
        os._exit(0)
    os.setsid()


def listener(path: Path) -> socket.socket:
    """Listens under another name first: at its own, the socket accepts at once."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    listening.bind(str(new))
    listening.listen(64)
    new.rename(path)
    return listening


def watch(pid: int) -> int | None:
    """A file descriptor that becomes readable when the process ends."""
    return os.pidfd_open(pid) if pid else None


def serve(engine: Engine, listening: socket.socket, raylet: int | None, lock: int) -> None:
    """Forks a server for each request, until the raylet ends."""
    entitle(f"moorage: launcher of {engine.__name__}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the lifeline processes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ours = [listening.fileno(), lock, *([] if raylet is None else [raylet])]
    waited = [listening.fileno(), *([] if raylet is None else [raylet])]
    while True:
        ready, _, _ = select.select(waited, [], [])
        if raylet in ready:
            return
        connection, _ = listening.accept()
        with connection:
            try:
                answer(engine, connection, ours)
            except (OSError, ValueError, KeyError, TypeError) as exc:
                say(f"a request failed: {exc!r}")
                with contextlib.suppress(OSError):
                    connection.sendall(f"refused: {exc!r}\n".encode())


def answer(engine: Engine, connection: socket.socket, ours: Sequence[int]) -> None:
    """One request. `ours` are file descriptors that no fork may keep: the lock would be held for as long as a server lives."""
    connection.settimeout(REQUEST_TIMEOUT_S)
    if uid(connection) != os.getuid():
        raise PermissionError("another user's process")
    request = receive(connection)
    if request is None:
        return
    try:
        reason = unfit(engine)
        if reason:
            connection.sendall(f"refused: {reason}\n".encode())
            return
        connection.settimeout(None)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            for fd in ours:
                os.close(fd)
            become_server(engine, connection.detach(), request)
        say(f"forked {pid} for {' '.join(request.arguments[:4])}")
    finally:
        os.close(request.output)


def unfit(engine: Engine) -> str:
    """Why no server can be forked from this process; empty if it can."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        return f"the launcher has {threads} threads"
    return "the launcher has touched an accelerator" if engine.accelerator_touched() else ""


def become_server(engine: Engine, cord: int, request: Request) -> None:
    """In the fork: becomes the lifeline process, and its child the server. Does not return."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (request.output, 1), (request.output, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(request.output)
        entitle(f"moorage: lifeline of {Path(request.folder).name}")
        os.write(cord, f"{os.getpid()}\n".encode())
        code = lifeline.run(cord, lambda: run_server(engine, request))
    finally:  # nothing of the launcher may run on in a fork
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        os._exit(code)


def run_server(engine: Engine, request: Request) -> None:
    """In the server's own process. Ends it."""
    code: object = 0
    try:
        os.chdir(request.folder)
        entitle(f"moorage: server of {Path(request.folder).name}")
        os.environ.clear()
        os.environ.update(request.environment)
        time.tzset()
        importlib.invalidate_caches()
        sys.argv = [sys.argv[1], *request.arguments]
        threads = request.environment.get("OMP_NUM_THREADS", "")
        engine.serve_in_fork(int(threads) if threads.isdigit() else None)
    except SystemExit as exc:
        code = exc.code
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1 if code else 0)


def receive(connection: socket.socket) -> Request | None:
    """Reads one request; None from one who only looked whether anybody is there."""
    data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    if not data and not fds:
        return None
    if len(fds) != 1:
        raise ValueError("no file descriptor for the output")
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, fds[0])
        while not data.endswith(b"\n"):
            more = connection.recv(1 << 16)
            if not more or len(data) > REQUEST_LIMIT:
                raise ValueError("cut short, or too long")
            data += more
        said = json.loads(data)
        request = Request([str(word) for word in said["arguments"]], dict(said["environment"]), str(said["folder"]), fds[0])
        opened.pop_all()
        return request


def uid(connection: socket.socket) -> int:
    """Of the process at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


def entitle(title: str) -> None:
    """What this process is called in a list of processes, where the library for it is there. To be
    called before the environment is changed: the library finds its place in memory by it."""
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)


def say(text: str) -> None:
    """A line in the launcher's log."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
