"""What the control plane remembers: the port (`base`), SQLite and PostgreSQL (`sql`), the twin (`memory`)."""

from __future__ import annotations

from cluster import errors
from cluster.store.base import Store
from cluster.store.database import Database
from cluster.store.memory import MemoryStore
from cluster.store.sql import SqlStore

__all__ = ["MemoryStore", "SqlStore", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at `url`: `sqlite:///<file>`, `postgresql://...`, or `memory://` for the twin. Does not connect yet.

    Raises InvalidRequest for any other URL; its message never repeats the URL, which may hold a password.
    """
    if url == "memory://":
        return MemoryStore()
    if not Database.supports(url):
        raise errors.InvalidRequest("The database URL must be sqlite:///<file> or postgresql://<user>@<host>/<database>.")
    return SqlStore(url)
