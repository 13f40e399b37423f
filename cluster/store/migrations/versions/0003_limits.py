"""What keys may use beside requests, when they end, and which key replaced them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_limits"
down_revision = "0002_models"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Platform keys keep what they could do: those of `admin` were the operator's, all others could do anything in their namespace."""
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("role", text, nullable=False, server_default=sa.text("''")))
        keys.add_column(sa.Column("expires_at", sa.Double))
        keys.add_column(sa.Column("tokens_per_minute", sa.BigInteger, nullable=False, server_default="0"))
        keys.add_column(sa.Column("tokens_per_day", sa.BigInteger, nullable=False, server_default="0"))
        keys.add_column(sa.Column("budget", sa.Double, nullable=False, server_default="0"))
        keys.add_column(sa.Column("budget_period", text, nullable=False, server_default="month"))
        keys.add_column(sa.Column("replaced_by", text, nullable=False, server_default=sa.text("''")))
    op.execute("UPDATE keys SET role = 'operator' WHERE kind = 'p' AND namespace = 'admin'")
    op.execute("UPDATE keys SET role = 'admin' WHERE kind = 'p' AND namespace <> 'admin'")
