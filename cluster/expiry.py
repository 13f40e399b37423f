"""When keys end: what users may say of it, and who is due, without looking at every key at every tick."""

from __future__ import annotations

import datetime
import heapq
import re
from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from cluster import errors, records
from cluster.resource import Resource

LATEST = 253_402_300_799.0
"""The end of the year 9999: later is a mistake."""
LONGEST_S = 100 * 365 * 86_400
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|\+00:00)")


class Expiring(Resource):
    """When something ends, said as a moment or as a time from now; neither = never."""

    expires_at: float | str | None = Field(None, union_mode="left_to_right")
    """ISO time ending in Z, or Unix seconds."""
    expires_in_seconds: float | None = Field(None, gt=0, le=LONGEST_S)

    @field_validator("expires_at", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            return _parsed(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LATEST:
            raise ValueError("write a time like 2027-01-31T12:00:00Z, or Unix seconds")
        return float(value)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.expires_at is not None and self.expires_in_seconds is not None:
            raise ValueError("say either expiresAt or expiresInSeconds")
        return self

    @property
    def says_when(self) -> bool:
        """Whether anything was said of it, `null` too."""
        return bool(self.model_fields_set & Expiring.model_fields.keys())

    def end(self, now: float) -> float | None:
        """Unix seconds; None = never. Raises InvalidRequest for a moment that has passed."""
        if self.expires_in_seconds is not None:
            return now + self.expires_in_seconds
        if self.expires_at is None:
            return None
        if float(self.expires_at) <= now:
            raise errors.InvalidRequest("expiresAt has passed already: give a time to come.", param="expiresAt")
        return float(self.expires_at)


def _parsed(text: str) -> float:
    try:
        if not MOMENT.fullmatch(text):
            raise ValueError
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError("write a time like 2027-01-31T12:00:00Z, or Unix seconds") from None


def status(key: records.Key, now: float) -> str:
    """`active`, `revoked` or `expired`: what the key's row says, or the clock, whichever is worse."""
    if key.status == "active" and key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return key.status


class Calendar:
    """Which owners have a key that ends, and when. Not thread-safe."""

    def __init__(self) -> None:
        self._coming: list[tuple[float, str]] = []
        self._noted: dict[str, float] = {}
        """The next end of each owner's; what else is in the heap is out of date."""

    def note(self, owner: str, keys: Iterable[records.Key], now: float) -> None:
        """These are all keys of `owner`."""
        ends = min((key.expires_at for key in keys if key.status == "active" and key.expires_at and key.expires_at > now), default=None)
        if ends is None:
            self._noted.pop(owner, None)
        elif self._noted.get(owner) != ends:
            self._noted[owner] = ends
            heapq.heappush(self._coming, (ends, owner))

    def due(self, now: float) -> set[str]:
        """Owners of whose keys one has ended since they were noted; they are to be noted again."""
        found = set()
        while self._coming and self._coming[0][0] <= now:
            ends, owner = heapq.heappop(self._coming)
            if self._noted.get(owner) == ends:
                del self._noted[owner]
                found.add(owner)
        return found
