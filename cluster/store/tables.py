"""The tables, as the newest migration leaves them (a test compares the two). Columns stand in the order of the record's fields.

Strings are compared by code point on every database, so that lists come in one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


class Text(sa.types.TypeDecorator[str]):
    """Any Python string: what a database refuses (NUL, lone surrogates in an engine's output) becomes a replacement character."""

    impl = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """What is sent to the database."""
        return None if value is None else value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


class Words(sa.types.TypeDecorator[Sequence[str]]):
    """A tuple of strings, stored as a JSON list."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> list[str]:  # noqa: ARG002 - SQLAlchemy's signature
        """What is sent to the database."""
        return list(value or ())

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> tuple[str, ...]:  # noqa: ARG002 - SQLAlchemy's signature
        """What the record holds."""
        return tuple(value or ())


metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _endpoint_id(**options: Any) -> sa.Column[str]:
    """A reference that goes when the endpoint goes."""
    return sa.Column("endpoint_id", Text, sa.ForeignKey("endpoints.id", ondelete="CASCADE"), **options)


endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("target", sa.Integer, nullable=False),
    sa.Column("serving", sa.Integer),
    sa.Column("desired", Text, nullable=False),
    sa.Column("awake", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("source", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("created_by", Text, nullable=False),
    sa.Column("updated_by", Text, nullable=False),
    sa.Column("last_request_at", sa.Double),
    sa.Column("load_seconds", sa.Double),
    sa.Column("restarts", sa.Integer, nullable=False),
    sa.Column("first_revision", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("namespace", "name"),
)

# The highest revision number ever used for a name; outlives the endpoint, because Serve applications are called by it.
# `former`: the highest one that was used before the present namespace of that name was made.
names = sa.Table(
    "names",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("last_revision", sa.Integer, nullable=False),
    sa.Column("former", sa.Integer, nullable=False, server_default="0"),
)

revisions = sa.Table(
    "revisions",
    metadata,
    _endpoint_id(primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fields", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", Text, nullable=False),
    sa.Column("live_at", sa.Double),
    sa.Column("failed_at", sa.Double),
    sa.Column("reason", Text, nullable=False),
    sa.Column("message", Text, nullable=False),
)

secrets = sa.Table(
    "secrets",
    metadata,
    _endpoint_id(primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("value", Text, nullable=False),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("digest", Text, nullable=False, unique=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("namespace", Text, nullable=False, index=True),
    sa.Column("description", Text, nullable=False),
    _endpoint_id(index=True),
    sa.Column("first", sa.Boolean, nullable=False),
    sa.Column("owner", Text, nullable=False, index=True),
    sa.Column("status", Text, nullable=False),
    sa.Column("requests_per_minute", sa.Integer, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("last_used_at", sa.Double),
    sa.Column("role", Text, nullable=False, server_default=sa.text("''")),
    sa.Column("expires_at", sa.Double),
    sa.Column("tokens_per_minute", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("tokens_per_day", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("budget", sa.Double, nullable=False, server_default="0"),
    sa.Column("budget_period", Text, nullable=False, server_default="month"),
    sa.Column("replaced_by", Text, nullable=False, server_default=sa.text("''")),
)

# No reference to endpoints: a replica may announce itself before or after its endpoint's row is there.
replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("application", Text, nullable=False),
    sa.Column("endpoint_id", Text, nullable=False, index=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("host", Text, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("max_concurrency", sa.Integer, nullable=False),
    sa.Column("capabilities", Words, nullable=False),
    sa.Column("load_seconds", sa.Double, nullable=False),
    sa.Column("announced_at", sa.Double, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    _endpoint_id(nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("message", Text, nullable=False),
    sa.Column("level", Text, nullable=False),
    sa.Column("revision", sa.Integer),
    sa.Column("replica", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Index(None, "endpoint_id", "id"),
    sqlite_autoincrement=True,  # ids of deleted events are not given again: they are the cursor of those who follow
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("description", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

namespaces = sa.Table(
    "namespaces",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("tenant", Text, nullable=False, server_default=sa.text("''")),
    sa.Column("description", Text, nullable=False, server_default=sa.text("''")),
    sa.Column("created_at", sa.Double, nullable=False, server_default="0"),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("tenant", Text, nullable=False, index=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("role", Text, nullable=False),
    sa.Column("namespaces", Words, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("description", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("scope", Text, primary_key=True),
    sa.Column("key", Text, primary_key=True),
    sa.Column("body_digest", Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False, index=True),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("description", Text, nullable=False),
    sa.Column("owner", Text, nullable=False),
    sa.Column("last_version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("repository", Text, nullable=False),
    sa.Column("revision", Text),
    sa.Column("task", Text, nullable=False),
    sa.Column("architecture", Text, nullable=False),
    sa.Column("description", Text, nullable=False),
    sa.Column("created_by", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.ForeignKeyConstraint(["namespace", "name"], ["models.namespace", "models.name"], ondelete="CASCADE"),
)

# Named secrets and integrations; their values are sealed.
credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("shelf", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("fields", sa.JSON, nullable=False),
    sa.Column("description", Text, nullable=False),
    sa.Column("owner", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("revision", Text, primary_key=True),
    sa.Column("instance_type", Text, primary_key=True),
    sa.Column("instance_size", Text, primary_key=True),
    sa.Column("settings", Text, primary_key=True),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("actor", Text, nullable=False),
    sa.Column("tenant", Text, nullable=False),
    sa.Column("role", Text, nullable=False),
    sa.Column("key_id", Text, nullable=False),
    sa.Column("source", Text, nullable=False),
    sa.Column("request_id", Text, nullable=False),
    sa.Column("action", Text, nullable=False),
    sa.Column("resource", Text, nullable=False),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("outcome", Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("detail", Text, nullable=False),
    sa.Column("previous", Text, nullable=False),
    sa.Column("hash", Text, nullable=False),
    sa.Index(None, "tenant", "seq"),
)
