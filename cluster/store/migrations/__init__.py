"""The schema's history, one Alembic migration per step. `upgrade` is all that a running Moorage needs of it.

A developer who has changed `tables` writes the next step with `python -m cluster.store.migrations "add a column"`.
"""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa

from cluster import errors

FOLDER = Path(__file__).parent


def upgrade(connection: sa.Connection) -> None:
    """Run what is missing, in the transaction that `connection` is in. Raises Conflict when the schema is newer than this code."""
    try:
        alembic.command.upgrade(configuration(connection), "head")
    except alembic.util.CommandError as exc:
        raise errors.Conflict("The database was written by a newer version of Moorage: upgrade Moorage, or restore a backup.") from exc


def configuration(connection: sa.Connection) -> alembic.config.Config:
    """What Alembic's commands take; env.py runs them on `connection`."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
