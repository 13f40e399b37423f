"""Named secrets and integrations in SQL; see `cluster.store.secret_store.SecretStore` for what each method promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from cluster import errors, records
from cluster.store import tables
from cluster.store.database import Database


class SqlSecrets:
    """Part of SqlStore, whose connection it uses."""

    _database: Database

    def add_credential(self, credential: records.Credential) -> None:
        article = "an" if credential.shelf == "integration" else "a"
        with self._database.write(f"There is {article} {credential.shelf} {credential.name!r} already.") as connection:
            connection.execute(sa.insert(tables.credentials).values(vars(credential)))

    def credential(self, namespace: str, shelf: str, name: str) -> records.Credential:
        with self._database.read() as connection:
            row = connection.execute(sa.select(tables.credentials).where(_one(namespace, shelf, name))).one_or_none()
        if row is None:
            raise _missing(namespace, shelf, name)
        return records.Credential(*row)

    def credentials(self, namespace: str, shelf: str | None = None) -> list[records.Credential]:
        table = tables.credentials
        query = sa.select(table).where(table.c.namespace == namespace).order_by(table.c.shelf, table.c.name)
        if shelf is not None:
            query = query.where(table.c.shelf == shelf)
        with self._database.read() as connection:
            return [records.Credential(*row) for row in connection.execute(query)]

    def update_credential(self, namespace: str, shelf: str, name: str, changes: Mapping[str, Any]) -> records.Credential:
        table = tables.credentials
        query = sa.update(table).where(_one(namespace, shelf, name)).values(dict(changes)).returning(*table.c)
        with self._database.write() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _missing(namespace, shelf, name)
        return records.Credential(*row)

    def delete_credential(self, namespace: str, shelf: str, name: str) -> None:
        with self._database.write() as connection:
            if connection.execute(sa.delete(tables.credentials).where(_one(namespace, shelf, name))).rowcount == 0:
                raise _missing(namespace, shelf, name)

    def reseal(self, change: Callable[[str], str]) -> int:
        with self._database.write() as connection:
            return _reseal_inline(connection, change) + _reseal_named(connection, change)


def _reseal_inline(connection: sa.Connection, change: Callable[[str], str]) -> int:
    """The secrets of endpoints."""
    table = tables.secrets
    rows = connection.execute(sa.select(table).order_by(table.c.endpoint_id, table.c.name).with_for_update()).all()
    for row in rows:
        mine = sa.and_(table.c.endpoint_id == row.endpoint_id, table.c.name == row.name)
        connection.execute(sa.update(table).where(mine).values(value=change(row.value)))
    return len(rows)


def _reseal_named(connection: sa.Connection, change: Callable[[str], str]) -> int:
    table, count = tables.credentials, 0
    order = (table.c.namespace, table.c.shelf, table.c.name)
    for row in connection.execute(sa.select(table).order_by(*order).with_for_update()).all():
        fields = {name: change(value) for name, value in row.fields.items()}
        connection.execute(sa.update(table).where(_one(row.namespace, row.shelf, row.name)).values(fields=fields))
        count += len(fields)
    return count


def _one(namespace: str, shelf: str, name: str) -> sa.ColumnElement[bool]:
    table = tables.credentials.c
    return sa.and_(table.namespace == namespace, table.shelf == shelf, table.name == name)


def _missing(namespace: str, shelf: str, name: str) -> errors.NotFound:
    return errors.NotFound(f"There is no {shelf} {name!r} in the namespace {namespace!r}.")
