"""Counts answers by endpoint, replica and status, and how long they took, from the lines of the access log.

A line is not parsed: one search finds four fields in each, without a call of Python's for a line. HAProxy's own
counters know neither what the edge refused of an endpoint nor the exact status.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

from cluster import histograms, messages
from gateway import members

LINE = re.compile(rb'"endpoint":"([^"]+)".*?"status":(-?\d+).*?"active":(\d+)}.*?"server":"([^"]*)"')
"""Slot, status, milliseconds and server, in the order of the line. A quotation mark in a path is written as \\"."""
NONE = b"-"
"""What HAProxy writes for what it does not know."""
NO_SERVER = (NONE, b"")
SWITCHED = b"101"
"""Status of a websocket: how long it lasts is the client's choice, and says nothing."""

Kind = tuple[bytes, bytes, bytes]
"""Slot (ns/name, or ns/name:member, its slash as `\\/`), server and status as the line has them."""


@dataclasses.dataclass
class _Count:
    count: int = 0
    seconds: histograms.Histogram = dataclasses.field(default_factory=histograms.Histogram)


class AnswerCounts:
    """Fed with lines; `take` what was counted since the last time."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        """`known` says whether there is an endpoint `ns/name`: a line has whatever its client asked for."""
        self._known = known
        self._counts: dict[Kind, _Count] = {}

    def see(self, lines: bytes) -> None:
        """Whole lines of the access log."""
        for slot, status, active, server in LINE.findall(lines):
            found = self._counts.get((slot, server, status))
            if found is None:
                if not self._known(members.base(_plain(slot))):
                    continue
                found = self._counts[slot, server, status] = _Count()
            found.count += 1
            if server not in NO_SERVER and status != SWITCHED:
                found.seconds.add(int(active) / 1000)

    def take(self) -> tuple[messages.Answers, ...]:
        """What was counted since the last call; members of an endpoint together."""
        counts, self._counts = self._counts, {}
        return tuple(
            messages.Answers(
                members.base(_plain(slot)), _name(server), _status(status), found.count, found.seconds.steps, found.seconds.total
            )
            for (slot, server, status), found in counts.items()
        )

    def give_back(self, answers: Iterable[messages.Answers]) -> None:
        """Counts again what could not be delivered."""
        for row in answers:
            kind = (row.endpoint.replace("/", "\\/").encode(), row.replica.encode() or NONE, b"%d" % (row.status or -1))
            found = self._counts.setdefault(kind, _Count())
            found.count += row.count
            found.seconds.merge(row.seconds, row.seconds_sum)


def _plain(slot: bytes) -> str:
    r"""HAProxy writes a slash as `\/`."""
    return slot.replace(b"\\/", b"/").decode()


def _name(server: bytes) -> str:
    return "" if server in NO_SERVER else server.decode()


def _status(text: bytes) -> int:
    """HAProxy writes -1 where there was no answer."""
    return int(text) if text.isdigit() else 0
