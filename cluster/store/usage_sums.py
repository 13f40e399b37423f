"""Requests added up by day, in memory. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TypeVar

from cluster import windows
from cluster.store import tenant_words
from cluster.usage_records import Amounts, CapacityDay, UsageDay, UsageRow

AMOUNTS = tuple(field.name for field in dataclasses.fields(Amounts))
R = TypeVar("R", UsageRow, CapacityDay)
Place = tuple[str, str, str, str, int, str, str, str]


def place(row: UsageRow) -> Place:
    """Where a request is added up: the fields that tell UsageDays apart, in their order."""
    return (windows.day(row.ended_at), row.tenant, row.namespace, row.endpoint, row.revision, row.key, row.served, row.adapter)


def place_of(day: UsageDay) -> Place:
    """Where sums stand."""
    return (day.day, day.tenant, day.namespace, day.endpoint, day.revision, day.key, day.model, day.adapter)


def set_apart(row: R, former: int, made_at: float) -> R:
    """The row under another namespace where its revision is one of those before the present namespace of that name was made (0 = none)."""
    if not former or row.revision > former:
        return row
    return dataclasses.replace(row, namespace=tenant_words.former(row.namespace, made_at))


def by_day(rows: Iterable[UsageRow]) -> list[UsageDay]:
    """Their sums, in order of the places."""
    found: dict[Place, UsageDay] = {}
    for row in rows:
        where = place(row)
        found[where] = add(found.get(where) or UsageDay(*where), row)
    return [found[where] for where in sorted(found)]


def add(day: UsageDay, row: UsageRow) -> UsageDay:
    """The sums with one request more."""
    outcome = row.outcome if row.outcome in ("finished", "aborted") else "failed"
    sums = {name: getattr(day, name) + getattr(row, name) for name in AMOUNTS}
    return dataclasses.replace(day, **{outcome: getattr(day, outcome) + 1}, **sums)
