"""The tables of metering; see `cluster.store.tables`. None refers to endpoints or keys: what was used stays when these go."""

from __future__ import annotations

import sqlalchemy as sa

from cluster.store.tables import Text, metadata


def _place(name: str) -> sa.Column[str]:
    return sa.Column(name, Text, primary_key=True)


def _amount(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


usage = sa.Table(
    "usage",
    metadata,
    sa.Column("id", Text, primary_key=True),
    *(sa.Column(name, Text, nullable=False) for name in ("namespace", "endpoint")),
    sa.Column("revision", sa.Integer, nullable=False),
    *(
        sa.Column(name, Text, nullable=False)
        for name in ("replica", "member", "key", "tenant", "route", "model", "served", "adapter", "outcome")
    ),
    sa.Column("status", sa.Integer, nullable=False),
    *(_amount(name) for name in ("started_at", "ended_at")),
    *(_count(name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "images")),
    *(_amount(name) for name in ("queue_s", "first_token_s", "total_s", "share_s", "accelerator_s", "cost")),
    sa.Column("stored_at", sa.Double, nullable=False, index=True),
)

usage_days = sa.Table(
    "usage_days",
    metadata,
    *(_place(name) for name in ("day", "tenant", "namespace", "endpoint")),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    *(_place(name) for name in ("key", "model", "adapter")),
    *(_count(name) for name in ("finished", "aborted", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "images")),
    *(_amount(name) for name in ("share_s", "accelerator_s", "cost")),
    sa.Index(None, "namespace", "endpoint", "day"),
)

capacity_days = sa.Table(
    "capacity_days",
    metadata,
    *(_place(name) for name in ("day", "namespace", "endpoint")),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    *(_place(name) for name in ("instance_type", "instance_size")),
    *(_amount(name) for name in ("accelerator_s", "ready_s", "starting_s", "hourly_cost", "committed_cost")),
    _count("zeros"),
    *(_amount(name) for name in ("zero_wait_s", "zero_wait_cost")),
    sa.Index(None, "namespace", "endpoint", "day"),
)

accounted = sa.Table("accounted", metadata, _place("name"), _amount("until"))
