"""Times on the command line: how long ago, or a moment; and how to see what was before a page."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Annotated

import typer

from cluster.cli import output

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Since = Annotated[
    str | None, typer.Option(help="From then on: 90s, 10m, 2h, 3d ago, or a time like 2026-01-31T12:00:00Z.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Up to then, in the same form.", show_default=False)]
Before = Annotated[str | None, typer.Option(help="What was before: the cursor of an earlier page.", show_default=False)]


def query(since: str | None, until: str | None, clock: Callable[[], float] = time.time) -> dict[str, str | None]:
    """The parameters of a request to the API."""
    return {"since": _moment(since, clock), "until": _moment(until, clock)}


def say_more(cursor: str | None) -> None:
    """Tells the person how to see more."""
    if cursor is not None:
        output.say(f"There is more: --before {cursor}")


def _moment(text: str | None, clock: Callable[[], float]) -> str | None:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text or "")
    return f"{clock() - int(match[1]) * UNITS[match[2]]:.3f}" if match else text
