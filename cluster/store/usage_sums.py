"""Requests added up by day, in memory. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cluster import windows
from cluster.usage_records import UsageDay, UsageRow

Place = tuple[str, str, str, str, int, str, str, str]


def place(row: UsageRow) -> Place:
    """Where a request is added up: the fields that tell UsageDays apart, in their order."""
    return (windows.day(row.ended_at), row.tenant, row.namespace, row.endpoint, row.revision, row.key, row.served, row.adapter)


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
    return dataclasses.replace(
        day,
        **{outcome: getattr(day, outcome) + 1},
        prompt_tokens=day.prompt_tokens + row.prompt_tokens,
        completion_tokens=day.completion_tokens + row.completion_tokens,
        cached_tokens=day.cached_tokens + row.cached_tokens,
        images=day.images + row.images,
        share_s=day.share_s + row.share_s,
        accelerator_s=day.accelerator_s + row.accelerator_s,
        cost=day.cost + row.cost,
    )
