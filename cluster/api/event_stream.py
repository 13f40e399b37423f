"""Events as they come: one JSON object per line, for as long as the endpoint lives and somebody reads."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence

from cluster import records
from cluster.api import wire

POLL_S = 0.5
QUIET_POLLS = 20
"""After so many without an event an empty line is sent, so that the server can see its client leave."""

BATCH = 2000

Read = Callable[[records.EventsWanted, int], Sequence[records.Event] | None]
"""The newest events, so many at most, that are wanted; None when the endpoint is gone."""


async def lines(read: Read, wanted: records.EventsWanted, first: int, poll_s: float = POLL_S) -> AsyncIterator[str]:
    """The newest `first` of what there is, then what comes. Each event once."""
    quiet, limit = 0, first
    while (found := await asyncio.to_thread(read, wanted, limit)) is not None:
        limit = BATCH
        for event in found:
            yield json.dumps(wire.event(event)) + "\n"
        if found:
            wanted = dataclasses.replace(wanted, after=found[-1].id)
            quiet = 0
        elif (quiet := quiet + 1) % QUIET_POLLS == 0:
            yield "\n"
        await asyncio.sleep(poll_s)
