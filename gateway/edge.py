"""One edge: HAProxy, the slow path and the log intake, kept at the manager's latest snapshot.

Goes on with the last snapshot while the manager is away, and adopts an HAProxy that an earlier gateway left running.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from cluster import messages, snapshot
from gateway import access_log, bodies, config, haproxy, holding, last_snapshot, program, relay, runtime, slow_path
from gateway.control import Control

log = logging.getLogger(__name__)

WATCH_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
TEND_S = 1.0
SAVE_S = 1.0
LOCK_S = 0.05


class Edge:
    """`await start()`, then `run()` until cancelled, then `stop()`."""

    def __init__(self, settings: config.EdgeConfig, manager: Control, clock: Callable[[], float] = time.time) -> None:
        self._config = settings
        self._files = settings.files
        self._manager = manager
        self._clock = clock
        self._haproxy = haproxy.Haproxy(settings)
        self._view = holding.View()
        self._holding = holding.Holding(self._view, manager)
        self._relay = relay.Relay(self._files.inner, self._haproxy.secret)
        self._log = access_log.AccessLog(self._files.ring, self._files.access_log, settings.log_bytes)
        self._slow: SlowPathServer | None = None
        self._lock: int | None = None
        self._applying = asyncio.Lock()
        self._target: snapshot.Snapshot | None = None
        self._news = asyncio.Event()
        self._held: program.Program | None = None
        self._left: dict[tuple[str, str], float] = {}
        self._active: dict[str, int] = {}

    @property
    def version(self) -> int | None:
        """The snapshot version that HAProxy has been programmed with; None before the first."""
        return self._view.now.version if self._held is not None and self._target is not None else None

    async def start(self) -> None:
        """Adopts the running HAProxy, or starts one with the last snapshot; without any snapshot `run` starts it with the first.

        Waits for another gateway on the same home to go. Raises HaproxyFailed, OSError.
        """
        self._lock = await _lock(str(self._files.lock))
        await self._log.start()
        await self._relay.start()
        budget = bodies.Budget(self._config.held_bytes)
        app = slow_path.create_app(self._view, self._holding, self._relay, self._haproxy.secret, budget, self._config.body_limit)
        self._slow = SlowPathServer(app, str(self._files.slow))
        await self._slow.start()
        self._held = await self._haproxy.adopt()
        saved = last_snapshot.load(self._files.snapshot)
        if self._held is not None:
            # HAProxy may know more than the file (a revocation just before a crash): it is not programmed from it.
            self._view.set(saved or snapshot.Snapshot())
        elif saved is not None:
            await self._apply(saved)

    async def run(self) -> None:
        """Follows the manager until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._follow, self._apply_news, self._tend, self._report, self._save):
                tasks.create_task(work(), name=f"edge {work.__name__}")

    async def check_health(self) -> None:
        """Raises RuntimeFailed when HAProxy, once started, does not answer."""
        if self._held is not None:
            await self._haproxy.runtime.info()

    async def stop(self, *, keep_haproxy: bool = False, grace: float = 10.0) -> None:
        """Ends the edge; running requests get `grace` seconds. `keep_haproxy` leaves HAProxy to the next gateway."""
        if not keep_haproxy:
            await self._haproxy.stop(grace)
        await self._holding.stop()
        if self._slow is not None:
            await self._slow.stop()
        await self._relay.stop()
        await self._log.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _follow(self) -> None:
        """Keeps `_target` at the manager's newest snapshot."""
        failures = 0
        while True:
            try:
                now: snapshot.Snapshot | None = None
                async for item in self._manager.watch():
                    now = _next(now, item)
                    failures = 0
                    self._target = now
                    self._news.set()
            except Exception as problem:  # noqa: BLE001 - whatever the port raises means "not now"; the edge serves on
                log.warning("the manager is away, serving what is known: %s", type(problem).__name__)
            await asyncio.sleep(WATCH_PAUSES[min(failures, len(WATCH_PAUSES) - 1)])
            failures += 1

    async def _apply_news(self) -> None:
        """Programs HAProxy with the newest target; when that fails, HAProxy is mended first and the same is tried again."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._target is None:
                continue
            try:
                await self._apply(self._target)
            except (runtime.RuntimeFailed, haproxy.HaproxyFailed) as problem:
                log.error("HAProxy could not be programmed: %s", problem)
                await asyncio.sleep(TEND_S)
                self._news.set()

    async def _apply(self, now: snapshot.Snapshot) -> None:
        async with self._applying:
            if self._held is None or self._haproxy.pid is None:
                await self._start_haproxy(now)
            else:
                await self._program(now, self._held)
            self._view.set(now)

    async def _start_haproxy(self, now: snapshot.Snapshot) -> None:
        """A fresh HAProxy whose files hold `now` already."""
        wanted = await self._fit(now, program.Program())
        await self._haproxy.start(wanted)
        self._held = await self._haproxy.runtime.held(self._haproxy.map_files)
        await self._program(now, self._held)

    async def _program(self, now: snapshot.Snapshot, held: program.Program) -> None:
        wanted = await self._fit(now, held)
        held = self._held or held
        complaints = await self._haproxy.runtime.send(program.diff(held, wanted, self._haproxy.map_files))
        if complaints:
            log.warning("HAProxy refused %d commands, comparing again: %s", len(complaints), complaints[0])
            held = await self._haproxy.runtime.held(self._haproxy.map_files)
            wanted = program.program(now, held, self._haproxy.slots)
            complaints = await self._haproxy.runtime.send(program.diff(held, wanted, self._haproxy.map_files))
        if complaints:
            self._held = await self._haproxy.runtime.held(self._haproxy.map_files)
            raise runtime.RuntimeFailed(f"HAProxy refused: {complaints[0]}")
        self._held = program.reached(held, wanted)
        await self._cut_revoked(held, wanted)

    async def _fit(self, now: snapshot.Snapshot, held: program.Program) -> program.Program:
        """The program for `now`; doubles the pool of slots, by a reload if HAProxy runs, until it fits."""
        try:
            return program.program(now, held, self._haproxy.slots)
        except program.OutOfSlots as short:
            slots = self._haproxy.slots
            while slots < short.needed:
                slots *= 2
            log.info("the pool of slots grows to %d", slots)
        if self._haproxy.pid is None:
            self._haproxy.slots = slots
        else:
            await self._haproxy.reload(held, slots)
            held = self._held = await self._haproxy.runtime.held(self._haproxy.map_files)
        return program.program(now, held, slots)

    async def _cut_revoked(self, held: program.Program, wanted: program.Program) -> None:
        old, new = held.maps.get("keys", {}), wanted.maps["keys"]
        gone = {value.split("|", 1)[0] for digest, value in old.items() if digest not in new}
        gone -= {value.split("|", 1)[0] for value in new.values()} if gone else set()
        if gone:
            for worker in await self._haproxy.workers():
                await worker.cut(gone)

    async def _tend(self) -> None:
        """Restarts a dead HAProxy, deletes drained servers, and counts what runs."""
        while True:
            await asyncio.sleep(TEND_S)
            if self._held is None:
                continue
            try:
                if self._haproxy.pid is None:
                    log.error("HAProxy is gone: starting it again")
                    await self._apply(self._target or self._view.now)
                await self._delete_leftovers()
                self._active = await self._count_active()
            except (runtime.RuntimeFailed, haproxy.HaproxyFailed) as problem:
                log.warning("HAProxy could not be tended: %s", problem)

    async def _delete_leftovers(self) -> None:
        """Servers that left the snapshot go when nothing runs on them any more, or after a long bound."""
        async with self._applying:
            if self._held is None or self._target is None:
                return
            wanted = program.program(self._view.now, self._held, self._haproxy.slots)
            left = program.leftovers(self._held, wanted)
            if not left:
                return
            now = time.monotonic()
            self._left = {pair: self._left.get(pair, now) for pair in left}
            for (slot, name), since in self._left.items():
                if now - since > self._config.drain_limit:
                    await self._haproxy.runtime.ask(f"shutdown sessions server {slot}/{name}")
                await self._haproxy.runtime.ask(f"disable server {slot}/{name};del server {slot}/{name}")
            servers = (await self._haproxy.runtime.held(self._haproxy.map_files)).servers
            kept = {
                slot: {name: row for name, row in rows.items() if name in servers.get(slot, {})}
                for slot, rows in self._held.servers.items()
            }
            self._held = program.Program(self._held.maps, kept)

    async def _count_active(self) -> dict[str, int]:
        active: dict[str, int] = {}
        for worker in await self._haproxy.workers():
            for path, count in (await worker.counters("st_ep")).items():
                active[path] = active.get(path, 0) + count
        return active

    async def _report(self) -> None:
        """Tells the manager what was seen; what could not be told is told the next time."""
        while True:
            await asyncio.sleep(self._config.report_every)
            active = dict(self._active)
            for path, waiting in self._holding.held().items():
                active[path] = active.get(path, 0) + waiting
            requests, used = self._log.counter.take()
            try:
                await self._manager.report(messages.Activity(self._config.name, self._clock(), requests, active, used))
            except Exception as problem:  # noqa: BLE001 - whatever the port raises means "not now"
                log.debug("a report was not taken: %s", type(problem).__name__)
                self._log.counter.give_back(requests, used)

    async def _save(self) -> None:
        """Writes the newest applied snapshot, at most once a second."""
        saved: snapshot.Snapshot | None = None
        while True:
            now = self._view.now
            if self._target is not None and now is not saved:
                await asyncio.to_thread(last_snapshot.save, self._files.snapshot, now)
                saved = now
            await asyncio.sleep(SAVE_S)
            if self._view.now is saved:
                await self._view.change(3600.0)


class SlowPathServer:
    """uvicorn on a unix socket, in this event loop."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._path = path
        # No websockets here: their handshake arrives as a plain GET and is answered as one.
        settings = uvicorn.Config(
            app, ws="none", lifespan="off", access_log=False, log_config=None, server_header=False, timeout_keep_alive=75, backlog=4096
        )
        self._server = _Uvicorn(settings)
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listens when it returns."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._socket.listen(4096)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="slow path")

    async def stop(self) -> None:
        """Breaks off what is being relayed."""
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await self._task
        if self._socket is not None:
            self._socket.close()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the process's owner."""
        yield


def _next(now: snapshot.Snapshot | None, item: snapshot.Snapshot | snapshot.Delta) -> snapshot.Snapshot:
    if isinstance(item, snapshot.Snapshot):
        return item
    if now is None:
        raise ValueError("the watch began with a delta")
    return snapshot.apply(now, item)


async def _lock(path: str) -> int:
    """An exclusive lock on this home; the file descriptor holds it until it is closed or the process dies."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(descriptor):  # noqa: ASYNC110 - another process holds it: there is no event to wait for
            await asyncio.sleep(LOCK_S)
    except asyncio.CancelledError:
        os.close(descriptor)
        raise
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
