"""Run by Alembic around its commands: migrates on the connection, and in the transaction, that `upgrade` was given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from cluster.store import tables


def _rendered(kind: str, thing: Any, _context: Any) -> str | Literal[False]:
    """Our types by what they are in the database: a migration does not depend on code that may change."""
    if kind == "type" and isinstance(thing, tables.Text):
        return "text"  # defined in script.py.mako
    if kind == "type" and isinstance(thing, tables.Words):
        return "sa.JSON()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    render_item=_rendered,
)
with context.begin_transaction():
    context.run_migrations()
