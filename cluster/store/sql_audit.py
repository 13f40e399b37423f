"""The audit log in SQL; see `cluster.store.audit_store.AuditStore` for what each method promises."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from cluster import records
from cluster.store import tables
from cluster.store.audit_store import AuditFilter, Seal
from cluster.store.database import Database

AUDIT_LOCK = 7_266_003
"""PostgreSQL advisory lock. It is the last that a transaction takes, so nobody can hold it and wait for another."""


class SqlAudit:
    """Part of SqlStore, whose connection it uses."""

    _database: Database

    def append_audit(self, row: records.Audit, seal: Seal) -> records.Audit:
        table = tables.audit
        with self._database.write("The audit log has another row at that place.") as connection:
            if not self._database.is_sqlite:  # SQLite has one writer anyway
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(AUDIT_LOCK)))
            newest = sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)
            seq, previous = connection.execute(newest).one_or_none() or (0, "")
            placed = dataclasses.replace(row, seq=seq + 1, previous=previous)
            stored = dataclasses.replace(placed, hash=seal(placed))
            connection.execute(sa.insert(table).values(vars(stored)))
        return stored

    def audit(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[records.Audit]:
        table = tables.audit
        query = sa.select(table).where(*_matches(wanted)).order_by(table.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.seq < before)
        with self._database.read() as connection:
            return [records.Audit(*row) for row in connection.execute(query)]

    def audit_after(self, seq: int, limit: int) -> list[records.Audit]:
        table = tables.audit
        with self._database.read() as connection:
            query = sa.select(table).where(table.c.seq > seq).order_by(table.c.seq).limit(limit)
            return [records.Audit(*row) for row in connection.execute(query)]


def _matches(wanted: AuditFilter) -> list[sa.ColumnElement[bool]]:
    table = tables.audit.c
    found = [
        table[name] == value
        for name in ("tenant", "actor", "key_id", "namespace", "outcome")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.action is not None:
        whole = not wanted.action.endswith(".")
        found.append(table.action == wanted.action if whole else table.action.startswith(wanted.action, autoescape=True))
    if wanted.resource is not None:
        below = table.resource.startswith(f"{wanted.resource}/", autoescape=True)
        found.append(sa.or_(table.resource == wanted.resource, below))
    if wanted.since is not None:
        found.append(table.at >= wanted.since)
    if wanted.until is not None:
        found.append(table.at < wanted.until)
    return found
