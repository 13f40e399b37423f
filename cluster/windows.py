"""Calendar windows that limits are counted in, all in UTC. Pure."""

from __future__ import annotations

import datetime
from typing import Literal

Kind = Literal["minute", "day", "week", "month", "total"]

MINUTE_S, DAY_S = 60.0, 86_400.0


def start(kind: Kind, now: float) -> float:
    """Unix seconds at which the present window began; 0 for `total`. Weeks begin on Monday."""
    if kind == "total":
        return 0.0
    if kind == "minute":
        return now - now % MINUTE_S
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "week":
        moment -= datetime.timedelta(days=moment.weekday())
    if kind == "month":
        moment = moment.replace(day=1)
    return moment.timestamp()


def end(kind: Kind, now: float) -> float:
    """Unix seconds at which the next one begins; 0 = never."""
    began = start(kind, now)
    if kind == "total":
        return 0.0
    if kind == "month":
        return start("month", began + 32 * DAY_S)
    return began + {"minute": MINUTE_S, "day": DAY_S, "week": 7 * DAY_S}[kind]


def day(at: float) -> str:
    """`2026-01-31`."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")


def split(since: float, until: float) -> list[tuple[str, float]]:
    """A span of time by day: (day, seconds of it)."""
    found = []
    while since < until:
        stop = min(until, end("day", since))
        found.append((day(since), stop - since))
        since = stop
    return found
