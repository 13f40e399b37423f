"""Requests for endpoints that have no ready replica: held in order, within bounds, one wake however many wait.

Released no faster than the ready replicas can take them. Reading and relaying the requests is the slow path's.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator

from cluster import errors, snapshot
from gateway import control, members

log = logging.getLogger(__name__)

SCALED_TO_ZERO, PAUSED, FAILED = "scaledToZero", "paused", "failed"
AWAITING_RESOURCES = "AwaitingResources"
WAKE_AGAIN_S = 10.0
"""A wake that changed nothing for this long is repeated while someone waits."""


class View:
    """The snapshot that HAProxy has been programmed with, and its changes."""

    def __init__(self) -> None:
        self.now = snapshot.Snapshot()
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def set(self, now: snapshot.Snapshot) -> None:
        """Makes `now` visible and tells everybody."""
        self.now = now
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every change."""
        self._listeners.append(listener)

    async def change(self, seconds: float) -> None:
        """Returns at the next change, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


@dataclasses.dataclass
class Line:
    """Who waits for one endpoint, how many were let in and are not done, and since when it is not ready."""

    waiting: collections.deque[asyncio.Future[None]] = dataclasses.field(default_factory=collections.deque)
    inside: int = 0
    since: float | None = None


class Holding:
    """The lines of all endpoints."""

    def __init__(self, view: View, manager: control.Control, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._manager = manager
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self._waking: dict[str, asyncio.Task[None]] = {}
        view.listen(self._pump_all)

    def held(self) -> dict[str, int]:
        """ns/name -> requests waiting now."""
        found: collections.Counter[str] = collections.Counter()
        for path, line in self._lines.items():
            if line.waiting:
                found[members.base(path)] += len(line.waiting)
        return dict(found)

    @contextlib.asynccontextmanager
    async def place(self, path: str, seconds: float | None = None, *, wake: bool = True) -> AsyncIterator[None]:
        """Waits until a replica of `ns/name` can take one more request; the place is free again at the end of the block.

        A member of an endpoint has a line of its own: `ns/name:member`.

        Waits at most `seconds` (None = the endpoint's own bound; 0 = not at all). Raises ModelNotFound, Paused, Failed,
        AwaitingResources, or Starting with the seconds after which asking again makes sense.
        """
        await self._enter(path, seconds, wake)
        try:
            yield
        finally:
            self._leave(path)

    def refuse(self, path: str) -> snapshot.Endpoint:
        """The endpoint, if waiting for it can help. Raises the error that says why not."""
        row = members.find(self._view.now, path)
        if row is None:
            raise errors.ModelNotFound
        if row.state == PAUSED:
            raise errors.Paused
        if capacity(row) > 0:
            return row
        if row.state == FAILED:
            raise errors.Failed(row.message or None)
        if row.reason == AWAITING_RESOURCES:
            raise errors.AwaitingResources(row.message or None, retry_after=row.load_seconds)
        return row

    def starting(self, row: snapshot.Endpoint) -> errors.Starting:
        """The error for `row` with what is left of its usual load time."""
        line = self._lines.get(row.path)
        gone = self._clock() - line.since if line and line.since is not None else 0.0
        return errors.Starting(retry_after=max(1.0, row.load_seconds - gone))

    async def stop(self) -> None:
        """Ends what runs in the background."""
        for task in self._waking.values():
            task.cancel()
        await asyncio.gather(*self._waking.values(), return_exceptions=True)

    async def _enter(self, path: str, seconds: float | None, wake: bool) -> None:
        row = self.refuse(path)
        line = self._lines.setdefault(path, Line())
        if not line.waiting and line.inside < capacity(row):
            line.inside += 1
            return
        if capacity(row) == 0 and line.since is None:
            line.since = self._clock()
        if wake and row.state == SCALED_TO_ZERO:
            self._wake(path)
        seconds = row.hold_timeout_s if seconds is None else min(seconds, row.hold_timeout_s)
        if seconds <= 0 or len(line.waiting) >= row.max_queue:
            raise self.starting(row)
        await self._wait(path, line, seconds)

    async def _wait(self, path: str, line: Line, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        let_in = False
        try:
            async with asyncio.timeout(seconds):
                await turn
            let_in = True
        except TimeoutError:
            raise self.starting(self.refuse(path)) from None
        finally:
            if not let_in:
                self._abandon(path, line, turn)

    def _abandon(self, path: str, line: Line, turn: asyncio.Future[None]) -> None:
        """Forgets a request that does not wait any more; it may have been let in at that very moment."""
        if turn in line.waiting:
            line.waiting.remove(turn)
        elif not turn.cancelled() and turn.exception() is None:
            self._leave(path)

    def _leave(self, path: str) -> None:
        self._lines[path].inside -= 1
        self._pump(path)

    def _pump_all(self) -> None:
        for path in list(self._lines):
            self._pump(path)

    def _pump(self, path: str) -> None:
        """Lets in as many as there is room for; tells all when waiting cannot help any more; forgets empty lines."""
        line = self._lines[path]
        try:
            room = capacity(self.refuse(path))
        except errors.MoorageError as refusal:
            line.since = None
            for turn in _next(line):
                turn.set_exception(refusal)
        else:
            line.since = None if room > 0 else line.since
            for turn in _next(line, while_=lambda: line.inside < room):
                turn.set_result(None)
                line.inside += 1
        if not line.waiting and not line.inside and line.since is None:
            del self._lines[path]

    def _wake(self, path: str) -> None:
        if path not in self._waking:
            task = asyncio.create_task(self._keep_waking(path), name=f"wake {path}")
            self._waking[path] = task
            task.add_done_callback(lambda _: self._waking.pop(path, None))

    async def _keep_waking(self, path: str) -> None:
        """Asks once; again only when that failed or changed nothing while requests wait."""
        pause = 0.2
        while self._asleep(path):
            try:
                await self._manager.wake(members.base(path))
            except control.ControlLost as problem:
                log.warning("waking %s failed, trying again: %s", path, problem)
                await self._view.change(pause)
                pause = min(pause * 2, 5.0)
            else:
                await self._until_awake(path)
            if not self._lines.get(path, Line()).waiting:
                return

    async def _until_awake(self, path: str) -> None:
        end = self._clock() + WAKE_AGAIN_S
        while self._asleep(path) and (left := end - self._clock()) > 0:
            await self._view.change(left)

    def _asleep(self, path: str) -> bool:
        row = self._view.now.endpoints.get(members.base(path))
        return row is not None and row.state == SCALED_TO_ZERO


def _next(line: Line, while_: Callable[[], bool] = lambda: True) -> Iterator[asyncio.Future[None]]:
    """Takes those who still wait out of the line, in order."""
    while line.waiting and while_():
        turn = line.waiting.popleft()
        if not turn.done():
            yield turn


def capacity(row: snapshot.Endpoint) -> float:
    """Requests that the endpoint's ready replicas take at once."""
    ready = [replica for replica in row.replicas if not replica.draining]
    room = math.inf if any(replica.max_concurrency <= 0 for replica in ready) else sum(replica.max_concurrency for replica in ready)
    return min(room, row.max_concurrency or math.inf) if ready else 0
