"""Metering in SQL; see `cluster.store.usage_store.UsageStore` for what each method promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from cluster.store import tables, usage_sums
from cluster.store.database import Database
from cluster.store.sql_models import Insert
from cluster.store.usage_store import Payer
from cluster.store.usage_tables import accounted, capacity_days, usage, usage_days
from cluster.usage_records import Asked, CapacityDay, Held, Spent, UsageRow, Used

R = TypeVar("R", UsageRow, CapacityDay)
CAPACITY = "capacity"
MOST_NAMED = 500
"""Names in one query; of more payers all are read."""
COUNTED = frozenset({"finished", "aborted", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "images", "zeros"})


class SqlUsage:
    """Part of SqlStore, whose connection it uses."""

    _database: Database
    _insert: Insert

    def add_usage(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        # In one order, so that two managers that are told the same do not deadlock.
        told = {row.id: row for row in reversed(rows)}
        if not told:
            return []
        with self._database.write() as connection:
            placed = {row.id: row for row in _set_apart(connection, list(told.values()))}
            query = self._insert(usage).on_conflict_do_nothing().returning(usage.c.id)
            new = {identity for (identity,) in connection.execute(query, [dict(vars(placed[identity])) for identity in sorted(told)])}
            fresh = [row for row in told.values() if row.id in new]
            if fresh:
                days = usage_sums.by_day(placed[row.id] for row in fresh)
                connection.execute(self._adding(usage_days), [dict(vars(day)) for day in days])
        return fresh[::-1]

    def usage_rows(self, ids: Collection[str]) -> dict[str, UsageRow]:
        found: dict[str, UsageRow] = {}
        with self._database.read() as connection:
            for part in _parts(ids):
                found.update((row.id, UsageRow(**row._mapping)) for row in connection.execute(sa.select(usage).where(usage.c.id.in_(part))))
        return found

    def prune_usage(self, before: float, limit: int = 10_000) -> int:
        old = sa.select(usage.c.id).where(usage.c.stored_at < before).limit(limit)
        with self._database.write() as connection:
            return connection.execute(sa.delete(usage).where(usage.c.id.in_(old))).rowcount

    def spent(self, payer: Payer, since: str, only: Collection[str] | None = None) -> dict[str, Spent]:
        return self._spent(usage_days, usage_days.c.day >= since, payer, only)

    def spent_lately(self, payer: Payer, since: float, only: Collection[str] | None = None) -> dict[str, Spent]:
        # What ended since was stored since: the index on stored_at serves.
        return self._spent(usage, sa.and_(usage.c.stored_at >= since, usage.c.ended_at >= since), payer, only)

    def used(self, asked: Asked) -> list[Used]:
        return self._sums(usage_days, asked, Used)

    def held(self, asked: Asked) -> list[Held]:
        return self._sums(capacity_days, asked.of_capacity, Held)

    def add_capacity(self, rows: Collection[CapacityDay], was: float, until: float) -> bool:
        with self._database.write() as connection:
            first = self._insert(accounted).values(name=CAPACITY, until=0.0).on_conflict_do_nothing()
            connection.execute(first)
            moved = sa.update(accounted).where(accounted.c.name == CAPACITY, accounted.c.until == was).values(until=until)
            if connection.execute(moved).rowcount == 0:
                return False
            if rows:
                placed = sorted(_set_apart(connection, list(rows)), key=_place)
                connection.execute(self._adding(capacity_days), [dict(vars(row)) for row in placed])
        return True

    def accounted_until(self) -> float:
        with self._database.read() as connection:
            return float(connection.scalar(sa.select(accounted.c.until).where(accounted.c.name == CAPACITY)) or 0.0)

    def instance_of(self, namespace: str, endpoint: str, revision: int) -> tuple[str, str] | None:
        table = capacity_days.c
        mine = (table.namespace == namespace, table.endpoint == endpoint, table.revision == revision)
        query = sa.select(table.instance_type, table.instance_size).where(*mine).order_by(table.day.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (row[0], row[1])

    def key_words(self, ids: Collection[str]) -> Mapping[str, tuple[str, str]]:
        keys = tables.keys.c
        found: dict[str, tuple[str, str]] = {}
        with self._database.read() as connection:
            for part in _parts(ids):
                query = sa.select(keys.id, keys.namespace, keys.description).where(keys.id.in_(part))
                found.update((row.id, (row.namespace, row.description)) for row in connection.execute(query))
        return found

    # Parts of queries

    def _adding(self, table: sa.Table) -> Any:
        """Inserts rows, or adds their amounts to those that are there."""
        insert = self._insert(table)
        amounts = [column.name for column in table.columns if not column.primary_key]
        added = {name: table.c[name] + insert.excluded[name] for name in amounts}
        return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=added)

    def _spent(self, table: sa.Table, lately: sa.ColumnElement[bool], payer: Payer, only: Collection[str] | None) -> dict[str, Spent]:
        columns = [table.c.key] if payer == "key" else [table.c.namespace, table.c.endpoint]
        sums = (sa.func.sum(table.c.prompt_tokens + table.c.completion_tokens), sa.func.sum(table.c.cost))
        query = sa.select(*columns, *sums).where(lately).group_by(*columns)
        found: dict[str, Spent] = {}
        with self._database.read() as connection:
            chosen = query.where(_one_of(columns, only)) if only is not None and len(only) <= MOST_NAMED else query
            for *who, tokens, cost in connection.execute(chosen):
                found["/".join(who)] = Spent(int(tokens), float(cost))
        return {name: spent for name, spent in found.items() if name and (only is None or name in only)}

    def _sums(self, table: sa.Table, asked: Asked, kind: type[Any]) -> list[Any]:
        """The groups with their sums."""
        amounts = {field.name: int if field.name in COUNTED else float for field in dataclasses.fields(kind) if field.name != "group"}
        columns = [table.c[name] for name in asked.columns]
        sums = (sa.func.coalesce(sa.func.sum(table.c[name]), 0).label(name) for name in amounts)
        query = sa.select(*columns, *sums).where(*_conditions(table, asked))
        if columns:
            query = query.group_by(*columns).order_by(*columns).limit(asked.limit).offset(asked.offset)
        with self._database.read() as connection:
            rows = [row._mapping for row in connection.execute(query)]
        return [
            kind({name: str(row[name]) for name in asked.columns}, **{name: read(row[name]) for name, read in amounts.items()})
            for row in rows
        ]


def _set_apart(connection: sa.Connection, rows: Sequence[R]) -> list[R]:
    """The rows, those of a namespace's earlier namesake under what that is called now: its replicas may be told of late."""
    names, spaces = tables.names.c, tables.namespaces.c
    told = (names.namespace.in_({row.namespace for row in rows}), names.name.in_({row.endpoint for row in rows}))
    query = sa.select(names.namespace, names.name, names.former, spaces.created_at).where(names.former > 0, *told)
    late = connection.execute(query.join(tables.namespaces, spaces.name == names.namespace))
    found = {(space, name): (former, at) for space, name, former, at in late}
    return [usage_sums.set_apart(row, *found.get((row.namespace, row.endpoint), (0, 0.0))) for row in rows]


def _conditions(table: sa.Table, asked: Asked) -> list[sa.ColumnElement[bool]]:
    found = [table.c.day >= asked.since, table.c.day <= asked.until]
    for name in ("namespace", "endpoint", "key", "model", "adapter", "tenant"):
        wanted = getattr(asked, name)
        if wanted is not None and name in table.c:
            found.append(table.c[name] == wanted)
    if asked.first_revision:
        found.append(table.c.revision >= asked.first_revision)
    if asked.scope is not None:
        mine = table.c.namespace.in_(sorted(asked.scope.namespaces))
        by_tenant = asked.scope.tenant and "tenant" in table.c
        found.append(sa.or_(mine, table.c.tenant == asked.scope.tenant) if by_tenant else mine)
    return found


def _one_of(columns: Sequence[sa.Column[Any]], names: Collection[str]) -> sa.ColumnElement[bool]:
    if len(columns) == 1:
        return columns[0].in_(sorted(names))
    return sa.tuple_(*columns).in_([tuple(name.split("/", 1)) for name in sorted(names)])


def _parts(names: Collection[str]) -> list[list[str]]:
    ordered = sorted(names)
    return [ordered[start : start + MOST_NAMED] for start in range(0, len(ordered), MOST_NAMED)]


def _place(row: CapacityDay) -> tuple[object, ...]:
    return (row.day, row.namespace, row.endpoint, row.revision, row.instance_type, row.instance_size)
