"""Moments in time as requests write them: `2026-01-31T12:00:00Z`, or Unix seconds."""

from __future__ import annotations

import datetime
import re
from typing import Annotated

from fastapi import Query

from cluster import errors

Since = Annotated[str | None, Query(description="A time like 2026-01-31T12:00:00Z, or Unix seconds.")]


def seconds(since: str | None) -> float:
    """Unix seconds; 0 for None. Raises InvalidRequest."""
    if since is None:
        return 0.0
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", since):
        return float(since)
    try:
        moment = datetime.datetime.fromisoformat(since)
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        raise errors.InvalidRequest("since takes a time like 2026-01-31T12:00:00Z, or Unix seconds.", param="since") from None
