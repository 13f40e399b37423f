"""Secret values and integrations of namespaces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_integrations"
down_revision = "0006_audit"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """One table; the secrets of endpoints stay where they are."""
    op.create_table(
        "credentials",
        sa.Column("namespace", text, nullable=False),
        sa.Column("shelf", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("fields", sa.JSON, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "shelf", "name", name="pk_credentials"),
    )
