"""Models in SQL; see `cluster.store.model_store.ModelStore` for what each method promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cluster import errors, records
from cluster.store import tables
from cluster.store.database import Database

Insert = Callable[[sa.Table], sqlite.Insert] | Callable[[sa.Table], postgresql.Insert]


class SqlModels:
    """Part of SqlStore, whose connection it uses."""

    _database: Database
    _insert: Insert

    def add_model_version(self, version: records.ModelVersion, owner: str = "", description: str = "") -> records.ModelVersion:
        model = records.Model(version.namespace, version.name, description, owner, 0, version.created_at, version.created_at)
        with self._database.write(f"The model {version.name!r} has a version {version.version} already.") as connection:
            connection.execute(self._insert(tables.models).values(vars(model)).on_conflict_do_nothing())
            place = _model(version.namespace, version.name)
            # The row stays locked to the end: versions of one model are numbered one after the other.
            last = connection.execute(sa.select(tables.models.c.last_version).where(place).with_for_update()).scalar_one()
            stored = dataclasses.replace(version, version=version.version or last + 1)
            connection.execute(sa.insert(tables.model_versions).values(vars(stored)))
            changes = {"last_version": max(last, stored.version), "updated_at": version.created_at}
            connection.execute(sa.update(tables.models).where(place).values(changes))
        return stored

    def model(self, namespace: str, name: str) -> records.Model:
        with self._database.read() as connection:
            row = connection.execute(sa.select(tables.models).where(_model(namespace, name))).one_or_none()
        if row is None:
            raise _missing(namespace, name)
        return records.Model(*row)

    def models(self, namespace: str) -> list[records.Model]:
        table = tables.models
        with self._database.read() as connection:
            query = sa.select(table).where(table.c.namespace == namespace).order_by(table.c.name)
            return [records.Model(*row) for row in connection.execute(query)]

    def model_versions(self, namespace: str, name: str | None = None) -> list[records.ModelVersion]:
        table = tables.model_versions
        query = sa.select(table).where(table.c.namespace == namespace).order_by(table.c.name, table.c.version)
        if name is not None:
            query = query.where(table.c.name == name)
        with self._database.read() as connection:
            return [records.ModelVersion(*row) for row in connection.execute(query)]

    def update_model(self, namespace: str, name: str, changes: Mapping[str, Any]) -> records.Model:
        query = sa.update(tables.models).where(_model(namespace, name)).values(dict(changes)).returning(*tables.models.c)
        with self._database.write() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise _missing(namespace, name)
        return records.Model(*row)

    def delete_model(self, namespace: str, name: str, version: int | None = None) -> None:
        table = tables.model_versions
        query = sa.delete(tables.models).where(_model(namespace, name))
        if version is not None:
            query = sa.delete(table).where(table.c.namespace == namespace, table.c.name == name, table.c.version == version)
        with self._database.write() as connection:
            if connection.execute(query).rowcount == 0:
                raise _missing(namespace, name, version)

    def put_measurement(self, measurement: records.Measurement) -> None:
        table, values = tables.measurements, dict(vars(measurement))
        upsert = self._insert(table).values(values)
        places = [column.name for column in table.primary_key]
        with self._database.write() as connection:
            connection.execute(upsert.on_conflict_do_update(index_elements=places, set_={"data": values["data"], "at": values["at"]}))

    def measurements(self, repository: str, revision: str, settings: str) -> list[records.Measurement]:
        table = tables.measurements
        mine = (table.c.repository == repository, table.c.revision == revision, table.c.settings == settings)
        with self._database.read() as connection:
            query = sa.select(table).where(*mine).order_by(table.c.instance_type, table.c.instance_size)
            return [records.Measurement(*row) for row in connection.execute(query)]


def _model(namespace: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(tables.models.c.namespace == namespace, tables.models.c.name == name)


def _missing(namespace: str, name: str, version: int | None = None) -> errors.NotFound:
    if version is not None:
        return errors.NotFound(f"The model {name!r} has no version {version}.")
    return errors.NotFound(f"There is no model {name!r} in the namespace {namespace!r}.")
