"""The model registry, and what was measured when models were loaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_models"
down_revision = "0001"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Three tables."""
    op.create_table(
        "models",
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("last_version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_models"),
    )
    op.create_table(
        "model_versions",
        sa.Column("namespace", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("version", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("repository", text, nullable=False),
        sa.Column("revision", text),
        sa.Column("task", text, nullable=False),
        sa.Column("architecture", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("created_by", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace", "name"], ["models.namespace", "models.name"], name="fk_model_versions_namespace", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("namespace", "name", "version", name="pk_model_versions"),
    )
    op.create_table(
        "measurements",
        sa.Column("repository", text, nullable=False),
        sa.Column("revision", text, nullable=False),
        sa.Column("instance_type", text, nullable=False),
        sa.Column("instance_size", text, nullable=False),
        sa.Column("settings", text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("repository", "revision", "instance_type", "instance_size", "settings", name="pk_measurements"),
    )
