"""What was used, by whom, and what hardware it took."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005_usage"
down_revision = "0004_tenancy"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _columns(kind: Any, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def upgrade() -> None:
    """Requests, their daily sums, hardware held each day, and until when that was accounted for."""
    counts = ("prompt_tokens", "completion_tokens", "cached_tokens", "images")
    op.create_table(
        "usage",
        *_columns(text, "id", "namespace", "endpoint"),
        *_columns(sa.Integer(), "revision"),
        *_columns(text, "replica", "member", "key", "tenant", "route", "model", "served", "adapter", "outcome"),
        *_columns(sa.Integer(), "status"),
        *_columns(sa.Double(), "started_at", "ended_at"),
        *_columns(sa.BigInteger(), *counts),
        *_columns(sa.Double(), "queue_s", "first_token_s", "total_s", "share_s", "accelerator_s", "cost", "stored_at"),
        sa.PrimaryKeyConstraint("id", name="pk_usage"),
    )
    op.create_index("ix_usage_stored_at", "usage", ["stored_at"])
    places = ("day", "tenant", "namespace", "endpoint", "revision", "key", "model", "adapter")
    op.create_table(
        "usage_days",
        *_columns(text, "day", "tenant", "namespace", "endpoint"),
        sa.Column("revision", sa.Integer, autoincrement=False, nullable=False),
        *_columns(text, "key", "model", "adapter"),
        *_columns(sa.BigInteger(), "finished", "aborted", "failed", *counts),
        *_columns(sa.Double(), "share_s", "accelerator_s", "cost"),
        sa.PrimaryKeyConstraint(*places, name="pk_usage_days"),
    )
    op.create_index("ix_usage_days_namespace_endpoint_day", "usage_days", ["namespace", "endpoint", "day"])
    op.create_table(
        "capacity_days",
        *_columns(text, "day", "namespace", "endpoint"),
        sa.Column("revision", sa.Integer, autoincrement=False, nullable=False),
        *_columns(text, "instance_type", "instance_size"),
        *_columns(sa.Double(), "accelerator_s", "ready_s", "starting_s", "hourly_cost", "committed_cost"),
        *_columns(sa.BigInteger(), "zeros"),
        *_columns(sa.Double(), "zero_wait_s", "zero_wait_cost"),
        sa.PrimaryKeyConstraint("day", "namespace", "endpoint", "revision", "instance_type", "instance_size", name="pk_capacity_days"),
    )
    op.create_index("ix_capacity_days_namespace_endpoint_day", "capacity_days", ["namespace", "endpoint", "day"])
    op.create_table(
        "accounted", *_columns(text, "name"), *_columns(sa.Double(), "until"), sa.PrimaryKeyConstraint("name", name="pk_accounted")
    )
