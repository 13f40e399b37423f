"""The gateway's port to the manager, and its in-memory twin for tests and demonstrations.

The implementation made of Serve handle calls lives with the gateway's deployment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from cluster import messages, snapshot


class ControlLost(Exception):
    """The manager cannot be reached; the edge goes on with what it knows and tries again."""


class Control(Protocol):
    """What a gateway asks of the manager. Every call raises ControlLost when it comes to nothing, for whatever reason: not now."""

    def watch(self) -> AsyncIterator[snapshot.Snapshot | snapshot.Delta]:
        """A whole Snapshot first, then a Delta for each version after it, for as long as the manager lives."""
        ...

    async def wake(self, path: str) -> None:
        """Asks for the endpoint `ns/name`, which is at zero, to be deployed again. Repeating it does no harm."""
        ...

    async def applied(self, gateway: str, version: int) -> None:
        """Tells that this gateway's HAProxy holds a version of the snapshot."""
        ...

    async def report(self, activity: messages.Activity) -> None:
        """Tells what was seen since the last report."""
        ...

    async def request_lines(self, lines: messages.RequestLines) -> int:
        """Hands over lines of the access log; returns how many bytes of that segment the manager has."""
        ...


class ControlTwin:
    """A manager in memory: `publish` what gateways are to see; `wakes` and `reports` are what they said."""

    def __init__(self, now: snapshot.Snapshot | None = None) -> None:
        self.now = now or snapshot.Snapshot()
        self.wakes: list[str] = []
        self.reports: list[messages.Activity] = []
        self.versions: list[tuple[str, int]] = []
        """(gateway, version applied)."""
        self.segments: dict[str, bytearray] = {}
        """The access log as it was handed over, by segment."""
        self.away = False
        self._watchers: set[asyncio.Queue[snapshot.Delta | None]] = set()

    def publish(self, now: snapshot.Snapshot) -> None:
        """Makes `now` the present snapshot and sends the difference to every watcher."""
        delta = snapshot.diff(self.now, now)
        self.now = now
        for watcher in self._watchers:
            watcher.put_nowait(delta)

    def leave(self) -> None:
        """The manager goes away: every watch ends and every call fails until `come_back`."""
        self.away = True
        for watcher in self._watchers:
            watcher.put_nowait(None)

    def come_back(self) -> None:
        """The manager answers again."""
        self.away = False

    async def watch(self) -> AsyncIterator[snapshot.Snapshot | snapshot.Delta]:
        """See Control. Raises ControlLost while away."""
        self._reachable()
        queue: asyncio.Queue[snapshot.Delta | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield self.now
            while (delta := await queue.get()) is not None:
                yield delta
            raise ControlLost
        finally:
            self._watchers.discard(queue)

    async def wake(self, path: str) -> None:
        """See Control. Raises ControlLost while away."""
        self._reachable()
        self.wakes.append(path)

    async def applied(self, gateway: str, version: int) -> None:
        """See Control. Raises ControlLost while away."""
        self._reachable()
        self.versions.append((gateway, version))

    async def report(self, activity: messages.Activity) -> None:
        """See Control. Raises ControlLost while away."""
        self._reachable()
        self.reports.append(activity)

    async def request_lines(self, lines: messages.RequestLines) -> int:
        """See Control. Raises ControlLost while away."""
        self._reachable()
        kept = self.segments.setdefault(lines.segment, bytearray())
        kept += lines.data[max(0, len(kept) - lines.first) :]
        return len(kept)

    def _reachable(self) -> None:
        if self.away:
            raise ControlLost
