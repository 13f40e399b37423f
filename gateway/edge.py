"""One edge: HAProxy, the slow path and the log intake, kept at the manager's latest snapshot.

Goes on with the last snapshot while the manager is away, and adopts an HAProxy that an earlier gateway left running.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection

from cluster import messages, snapshot
from gateway import (
    access_log,
    activity,
    answers,
    bodies,
    config,
    haproxy,
    holding,
    last_snapshot,
    log_shipping,
    programmer,
    relay,
    runtime,
    slow_path,
    slow_path_server,
)
from gateway.control import Control, ControlLost

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
        self._programmer = programmer.Programmer(self._haproxy, settings.drain_limit, settings.name, wall=clock)
        self._view = holding.View()
        self._holding = holding.Holding(self._view, manager)
        self._relay = relay.Relay(self._files.inner, self._haproxy.secret)
        self._answers = answers.AnswerCounts(lambda path: path in self._view.now.endpoints)
        self._log = access_log.AccessLog(self._files.ring, self._files.access_log, settings.log_bytes, self._answers.see)
        self._shipper = log_shipping.LogShipper(self._files.access_log, settings.name, manager.request_lines)
        budget = bodies.Budget(settings.held_bytes)
        app = slow_path.create_app(self._view, self._holding, self._relay, self._haproxy.secret, budget, settings.body_limit, clock)
        self._slow = slow_path_server.SlowPathServer(app, str(self._files.slow))
        self._lock: int | None = None
        self._target: snapshot.Snapshot | None = None
        self._news = asyncio.Event()
        self._changed_keys: set[str] | None = None
        """Digests that differ between `_target` and what was applied last; None = any may."""
        self._unsaved: list[snapshot.Delta] | None = None
        """What leads from the saved snapshot to `_target`; None = not known."""
        self._to_save = asyncio.Event()
        self._applied = asyncio.Event()
        self._activity = activity.Activity()

    @property
    def version(self) -> int | None:
        """The manager's snapshot version that HAProxy has been programmed with; None before the first."""
        return self._view.now.version if self._target is not None and self._programmer.started else None

    async def start(self) -> None:
        """Adopts the running HAProxy, or starts one with the last snapshot; without any snapshot `run` starts it with the first.

        Waits for another gateway on the same home to go. Raises HaproxyFailed, OSError.
        """
        self._lock = await _lock(str(self._files.lock))
        await self._log.start()
        await self._relay.start()
        await self._slow.start()
        saved = last_snapshot.load(self._files.snapshot)
        if await self._programmer.adopt():
            # HAProxy may know more than the file (a revocation just before a crash): it is not programmed from it.
            self._view.set(saved or snapshot.Snapshot())
        elif saved is not None:
            await self._apply(saved)

    async def run(self) -> None:
        """Follows the manager until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._follow, self._apply_news, self._tell_applied, self._tend, self._report, self._save):
                tasks.create_task(work(), name=f"edge {work.__name__}")
            tasks.create_task(self._shipper.run(), name="edge log shipping")

    async def check_health(self) -> None:
        """Raises RuntimeFailed when HAProxy, once started, does not answer."""
        if self._programmer.started:
            await self._haproxy.runtime.info()

    async def stop(self, *, keep_haproxy: bool = False, grace: float = 10.0) -> None:
        """Ends the edge; running requests get `grace` seconds. `keep_haproxy` leaves HAProxy to the next gateway."""
        if not keep_haproxy:
            await self._haproxy.stop(grace)
        await self._holding.stop()
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
                    if isinstance(item, snapshot.Snapshot):
                        self._changed_keys = self._unsaved = None
                    else:
                        if self._changed_keys is not None:
                            self._changed_keys.update(item.keys)
                        if self._unsaved is not None:
                            self._unsaved.append(item)
                    self._to_save.set()
                    self._news.set()
            except Exception as problem:  # noqa: BLE001 - whatever a manager of another version says, the edge serves on
                log.warning("the manager is away, serving what is known: %r", problem)
            await asyncio.sleep(WATCH_PAUSES[min(failures, len(WATCH_PAUSES) - 1)])
            failures += 1

    async def _apply_news(self) -> None:
        """Programs HAProxy with the newest target; when that fails, HAProxy is mended first and the same is tried again."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._target is None:
                continue
            changed_keys, self._changed_keys = self._changed_keys, set()
            try:
                await self._apply(self._target, changed_keys)
            except (runtime.RuntimeFailed, haproxy.HaproxyFailed) as problem:
                log.error("HAProxy could not be programmed: %s", problem)
                self._changed_keys = None
                await asyncio.sleep(TEND_S)
                self._news.set()

    async def _apply(self, now: snapshot.Snapshot, changed_keys: Collection[str] | None = None) -> None:
        await self._programmer.apply(now, changed_keys)
        # Only now: a held request that is let in must find its server in HAProxy.
        self._view.set(now)
        self._applied.set()

    async def _tell_applied(self) -> None:
        """Tells the manager, which lets those wait who changed something; the next report says it too."""
        while True:
            await self._applied.wait()
            self._applied.clear()
            try:
                await self._manager.applied(self._config.name, self._view.now.version)
            except ControlLost as problem:
                log.debug("the manager was not told of a version: %s", problem)

    async def _tend(self) -> None:
        """Restarts a dead HAProxy, cuts expired streams, deletes drained servers, and counts what runs."""
        while True:
            await asyncio.sleep(TEND_S)
            if not self._programmer.started:
                continue
            try:
                await self._programmer.mend(self._view.now)
                await self._programmer.cut_withdrawn(self._view.now)
                await self._programmer.delete_leftovers()
                await self._programmer.look(self._activity, self._clock())
            except (runtime.RuntimeFailed, haproxy.HaproxyFailed) as problem:
                log.warning("HAProxy could not be tended: %s", problem)

    async def _report(self) -> None:
        """Tells the manager what was seen; what could not be told is told the next time."""
        while True:
            await asyncio.sleep(self._config.report_every)
            active = dict(self._activity.active)
            for path, waiting in self._holding.held().items():
                active[path] = active.get(path, 0) + waiting
            requests, used = self._activity.take()
            answered, running = self._answers.take(), self._activity.running
            try:
                version = self._view.now.version
                await self._manager.report(
                    messages.Activity(self._config.name, self._clock(), requests, active, used, version, running, answered)
                )
            except ControlLost as problem:
                log.debug("a report was not taken: %s", problem)
                self._activity.give_back(requests, used)
                self._answers.give_back(answered)

    async def _save(self) -> None:
        """Writes what the manager said last, at most once a second."""
        file = last_snapshot.LastSnapshot(self._files.snapshot)
        while True:
            await self._to_save.wait()
            self._to_save.clear()
            deltas, self._unsaved = self._unsaved, []
            if self._target is not None:
                try:
                    await asyncio.to_thread(file.save, self._target, deltas)
                except OSError as problem:
                    log.error("the snapshot cannot be kept for the next start: %s", problem)
                    self._unsaved = None
            await asyncio.sleep(SAVE_S)


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
