"""First schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Everything that the control plane remembers."""
    _endpoints()
    _belongings()
    _observations()
    _rest()


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("serving", sa.Integer),
        sa.Column("desired", text, nullable=False),
        sa.Column("awake", sa.Boolean, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("created_by", text, nullable=False),
        sa.Column("updated_by", text, nullable=False),
        sa.Column("last_request_at", sa.Double),
        sa.Column("load_seconds", sa.Double),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_endpoints"),
        sa.UniqueConstraint("namespace", "name", name="uq_endpoints_namespace_name"),
    )
    op.create_table(
        "names",
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("last_revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_names"),
    )
    op.create_table(
        "revisions",
        sa.Column("endpoint_id", text, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("fields", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", text, nullable=False),
        sa.Column("live_at", sa.Double),
        sa.Column("failed_at", sa.Double),
        sa.Column("reason", text, nullable=False),
        sa.Column("message", text, nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_revisions_endpoint_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("endpoint_id", "number", name="pk_revisions"),
    )


def _belongings() -> None:
    op.create_table(
        "secrets",
        sa.Column("endpoint_id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_secrets_endpoint_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("endpoint_id", "name", name="pk_secrets"),
    )
    op.create_table(
        "keys",
        sa.Column("id", text, nullable=False),
        sa.Column("digest", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("endpoint_id", text),
        sa.Column("first", sa.Boolean, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("status", text, nullable=False),
        sa.Column("requests_per_minute", sa.Integer, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("last_used_at", sa.Double),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_keys_endpoint_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
    )
    op.create_index("ix_keys_endpoint_id", "keys", ["endpoint_id"])
    op.create_index("ix_keys_namespace", "keys", ["namespace"])


def _observations() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", text, nullable=False),
        sa.Column("application", text, nullable=False),
        sa.Column("endpoint_id", text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("host", text, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("max_concurrency", sa.Integer, nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("load_seconds", sa.Double, nullable=False),
        sa.Column("announced_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )
    op.create_index("ix_replicas_endpoint_id", "replicas", ["endpoint_id"])
    op.create_table(
        "events",
        sa.Column("endpoint_id", text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("message", text, nullable=False),
        sa.Column("level", text, nullable=False),
        sa.Column("revision", sa.Integer),
        sa.Column("replica", text, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name="fk_events_endpoint_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_endpoint_id_id", "events", ["endpoint_id", "id"])


def _rest() -> None:
    op.create_table("namespaces", sa.Column("name", text, nullable=False), sa.PrimaryKeyConstraint("name", name="pk_namespaces"))
    op.create_table(
        "answers",
        sa.Column("scope", text, nullable=False),
        sa.Column("key", text, nullable=False),
        sa.Column("body_digest", text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_answers"),
    )
    op.create_index("ix_answers_created_at", "answers", ["created_at"])
