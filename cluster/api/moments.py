"""Times as people write them in a query."""

import datetime
import re
from typing import Annotated

from fastapi import Query

from cluster import errors

Since = Annotated[str | None, Query(description="From then on: a time like 2026-01-31T12:00:00Z, or Unix seconds.")]
Until = Annotated[str | None, Query(description="Up to then, in the same form.")]


def since(text: str | None) -> float:
    """Unix seconds; 0 for None. Raises InvalidRequest."""
    return 0.0 if text is None else _seconds(text, "since")


def until(text: str | None) -> float | None:
    """Unix seconds; None for None. Raises InvalidRequest."""
    return None if text is None else _seconds(text, "until")


def _seconds(text: str, name: str) -> float:
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return float(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        raise errors.InvalidRequest(f"{name} takes a time like 2026-01-31T12:00:00Z, or Unix seconds.", param=name) from None
