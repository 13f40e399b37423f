"""The audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_audit"
down_revision = "0005_usage"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """One table. The log begins here: what was changed before is not in it."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("tenant", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("key_id", text, nullable=False),
        sa.Column("source", text, nullable=False),
        sa.Column("request_id", text, nullable=False),
        sa.Column("action", text, nullable=False),
        sa.Column("resource", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("outcome", text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("detail", text, nullable=False),
        sa.Column("previous", text, nullable=False),
        sa.Column("hash", text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_tenant_seq", "audit", ["tenant", "seq"])
