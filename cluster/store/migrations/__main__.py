"""Writes the next migration from the difference between `tables` and the migrations so far: read it before you commit it."""

from __future__ import annotations

import sys

import alembic.command
import alembic.script
import sqlalchemy as sa

from cluster.store import migrations


def write(message: str) -> None:
    """One new file in versions/, numbered after the last; made against SQLite, so check types that differ on PostgreSQL."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        migrations.upgrade(connection)
        config = migrations.configuration(connection)
        last = alembic.script.ScriptDirectory.from_config(config).get_current_head()
        alembic.command.revision(config, message, autogenerate=True, rev_id=f"{int(last or 0) + 1:04}")
    engine.dispose()


if __name__ == "__main__":
    write(" ".join(sys.argv[1:]) or sys.exit("What does the migration do? Say it in a few words."))
