"""What was used tells an endpoint from an earlier one of its name, and a namespace from an earlier one of its."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_namesakes"
down_revision = "0007_integrations"

endpoints = sa.table("endpoints", sa.column("id"), sa.column("first_revision"))
revisions = sa.table("revisions", sa.column("endpoint_id"), sa.column("number"))


def upgrade() -> None:
    """Two numbers of revisions; those of the endpoints that there are are known."""
    op.add_column("endpoints", sa.Column("first_revision", sa.Integer, nullable=False, server_default="0"))
    op.add_column("names", sa.Column("former", sa.Integer, nullable=False, server_default="0"))
    first = sa.select(sa.func.min(revisions.c.number)).where(revisions.c.endpoint_id == endpoints.c.id).scalar_subquery()
    op.execute(sa.update(endpoints).values(first_revision=sa.func.coalesce(first, 0)))
