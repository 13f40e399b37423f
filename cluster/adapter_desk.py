"""Where replicas wait for a change of their endpoint's adapters, so that one takes effect at once.

A replica says what it has been told and is answered when something else is wanted, or after a while. What is wanted is read
from the store each time: nothing here is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable

from cluster import adapters, messages, records

HOLD_S = 30.0
"""A question is answered after so long at the latest."""
AWAY_S = 2.0
"""A replica that was answered and has not asked again for so long is not waited for."""


@dataclasses.dataclass
class Poll:
    """A replica's question. `changes` counts what may have changed, `known` how many of these `wanted` was read after."""

    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event
    seen: messages.Adapters
    wanted: messages.Adapters
    endpoint_id: str = ""
    changes: int = 1
    known: int = 0
    waiting: bool = True
    at: float = 0.0


class Desk:
    """`changed` and `told` may be called from any thread."""

    def __init__(self, find: Callable[[str], records.Endpoint | None], clock: Callable[[], float] = time.monotonic) -> None:
        """`find` reads the endpoint of an application from the store; it blocks."""
        self._find = find
        self._clock = clock
        self._condition = threading.Condition()
        self._polls: dict[str, Poll] = {}

    async def wait(self, replica: messages.ReplicaIdentity, seen: messages.Adapters, hold_s: float = HOLD_S) -> messages.Adapters:
        """What the replica is to have, as soon as that is not `seen`; `seen` after `hold_s`."""
        poll = self._ask(replica.id, seen)
        try:
            end = self._clock() + hold_s
            while True:
                poll.woken.clear()
                wanted = await self._read(poll, replica.application)
                left = end - self._clock()
                if wanted != seen or left <= 0:
                    return wanted
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(poll.woken.wait(), left)
        finally:
            self._answered(poll)

    def changed(self, endpoint_id: str) -> None:
        """Something of this endpoint changed: its replicas are told if that concerns them."""
        with self._condition:
            for poll in self._polls.values():
                if poll.endpoint_id in ("", endpoint_id):
                    poll.changes += 1
                    if poll.waiting:
                        poll.loop.call_soon_threadsafe(poll.woken.set)

    def told(self, timeout_s: float) -> bool:
        """Waits until every replica that asks has what is wanted; False when that takes longer."""
        deadline = self._clock() + timeout_s
        with self._condition:
            while not all(map(self._has_it, self._polls.values())):
                left = deadline - self._clock()
                if left <= 0:
                    return False
                self._condition.wait(left)
            return True

    def _ask(self, identity: str, seen: messages.Adapters) -> Poll:
        poll = Poll(asyncio.get_running_loop(), asyncio.Event(), seen, seen, at=self._clock())
        with self._condition:
            before = self._polls.get(identity)
            poll.endpoint_id = before.endpoint_id if before is not None else ""
            self._polls = {name: known for name, known in self._polls.items() if known.waiting or self._clock() - known.at < AWAY_S}
            self._polls[identity] = poll
        return poll

    async def _read(self, poll: Poll, application: str) -> messages.Adapters:
        with self._condition:
            count = poll.changes  # before the read: what changes during it is read again
        row = await asyncio.to_thread(self._find, application)
        with self._condition:
            poll.endpoint_id = row.id if row is not None else ""
            poll.wanted = adapters.wanted(row) if row is not None else poll.seen
            poll.known = count
            self._condition.notify_all()
            return poll.wanted

    def _answered(self, poll: Poll) -> None:
        with self._condition:
            poll.waiting, poll.at = False, self._clock()
            self._condition.notify_all()

    def _has_it(self, poll: Poll) -> bool:
        away = not poll.waiting and self._clock() - poll.at > AWAY_S
        return away or (poll.known == poll.changes and poll.wanted == poll.seen)
