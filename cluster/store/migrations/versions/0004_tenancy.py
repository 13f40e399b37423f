"""Tenants, their namespaces and users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_tenancy"
down_revision = "0003_limits"
text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

tenants = sa.table("tenants", sa.column("name"), sa.column("description"), sa.column("created_at"))
namespaces = sa.table("namespaces", sa.column("name"), sa.column("tenant"))
users = sa.table(
    "users",
    *(sa.column(name) for name in ("name", "tenant", "namespace", "kind", "role", "active", "description", "created_at", "updated_at")),
    sa.column("namespaces", sa.JSON),
)
keys = sa.table("keys", *(sa.column(name) for name in ("kind", "namespace", "owner", "created_at")))
OPERATORS = "admin"


def upgrade() -> None:
    """Two tables; every namespace gets a tenant of its own name, and everyone who owns platform keys becomes a user."""
    op.create_table(
        "tenants",
        sa.Column("name", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "users",
        sa.Column("name", text, nullable=False),
        sa.Column("tenant", text, nullable=False),
        sa.Column("namespace", text, nullable=False),
        sa.Column("kind", text, nullable=False),
        sa.Column("role", text, nullable=False),
        sa.Column("namespaces", sa.JSON, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_index("ix_users_tenant", "users", ["tenant"])
    op.create_index("ix_keys_owner", "keys", ["owner"])
    with op.batch_alter_table("namespaces") as table:
        table.add_column(sa.Column("tenant", text, nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("description", text, nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("created_at", sa.Double, nullable=False, server_default="0"))
    connection = op.get_bind()
    _give_tenants(connection)
    _make_users(connection)


def _give_tenants(connection: sa.Connection) -> None:
    """Namespaces that only a key or an endpoint names are among them."""
    known = set(connection.scalars(sa.select(namespaces.c.name)))
    named = set(connection.scalars(sa.text("SELECT namespace FROM endpoints UNION SELECT namespace FROM keys")))
    for name in sorted(named - known):
        connection.execute(sa.insert(namespaces).values(name=name, tenant=name))
    connection.execute(sa.update(namespaces).values(tenant=namespaces.c.name))
    for name in sorted(named | known):
        connection.execute(sa.insert(tenants).values(name=name, description="", created_at=0.0))


def _make_users(connection: sa.Connection) -> None:
    """The operators' own first: a name that two namespaces use is kept by the first, and the other's gets the namespace behind it."""
    platform = keys.c.kind == "p"
    connection.execute(sa.update(keys).where(platform, keys.c.owner == "").values(owner=keys.c.namespace))
    born = sa.func.min(keys.c.created_at)
    query = sa.select(keys.c.owner, keys.c.namespace, born).where(platform).group_by(keys.c.owner, keys.c.namespace)
    found = [(str(row[0]), str(row[1]), float(row[2] or 0)) for row in connection.execute(query)]
    made: set[str] = set()
    for owner, namespace, at in sorted(found, key=lambda row: (row[1] != OPERATORS, row[2], row[1])):
        name = owner if owner not in made else f"{owner}-{namespace}"
        if name != owner:
            mine = (platform, keys.c.owner == owner, keys.c.namespace == namespace)
            connection.execute(sa.update(keys).where(*mine).values(owner=name))
        made.add(name)
        row = {"name": name, "tenant": namespace, "namespace": namespace, "kind": "person", "namespaces": [], "active": True}
        role = "operator" if namespace == OPERATORS else "admin"
        connection.execute(sa.insert(users).values({**row, "role": role, "description": "", "created_at": at, "updated_at": at}))
