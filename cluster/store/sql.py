"""The Store in SQL, for SQLite and PostgreSQL alike. Connections, locks and errors are `database`'s, the tables `tables`'."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from cluster import errors, records
from cluster.store import migrations, tables
from cluster.store.base import ANSWER_LIFETIME_S, EVENTS_KEPT
from cluster.store.database import Database
from cluster.store.sql_audit import SqlAudit
from cluster.store.sql_models import SqlModels
from cluster.store.sql_secrets import SqlSecrets
from cluster.store.sql_tenants import SqlTenants
from cluster.store.sql_usage import SqlUsage

T = TypeVar("T")

MIGRATION_LOCK, EVENT_LOCK = 7_266_001, 7_266_002
"""PostgreSQL advisory locks."""


class SqlStore(SqlAudit, SqlModels, SqlSecrets, SqlTenants, SqlUsage):
    """Store on `url`; see `cluster.store.base.Store` for what each method promises."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        self._changes = 0
        self._counting = threading.Lock()

    def migrate(self) -> None:
        with self._database.write() as connection:
            if not self._database.is_sqlite:
                connection.execute(sa.text("SET LOCAL lock_timeout = '120s'"))  # another manager may be migrating
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            migrations.upgrade(connection)

    def close(self) -> None:
        self._database.close()

    def changes(self) -> int:
        return self._changes

    def mark(self) -> tuple[float, ...]:
        found: list[float] = []
        with self._database.read() as connection:
            changed = (tables.endpoints.c.updated_at, tables.keys.c.updated_at, tables.users.c.updated_at, tables.namespaces.c.created_at)
            for at in changed:
                count, last = connection.execute(sa.select(sa.func.count(), sa.func.max(at)).select_from(at.table)).one()
                found += [float(count), float(last or 0)]
        return tuple(found)

    def together(self) -> contextlib.AbstractContextManager[None]:
        return self._database.together()

    def from_first_write(self, began: Callable[[], None], ended: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        return self._database.from_first_write(began, ended)

    def afterwards(self, act: Callable[[], None]) -> None:
        self._database.afterwards(act)

    # Endpoints and revisions

    def create_endpoint(
        self,
        endpoint: records.Endpoint,
        fields: Mapping[str, Any],
        key: records.Key | None,
        secrets: Mapping[str, str],
        events: Iterable[records.Event] = (),
    ) -> records.Endpoint:
        taken = f"There is an endpoint {endpoint.name!r} in namespace {endpoint.namespace!r} already."
        with self._database.write(taken) as connection:
            # The endpoint before its name's counter, here as in updates: one order of locks, so no deadlock.
            connection.execute(sa.insert(tables.endpoints).values(_values(endpoint)))
            created = self._add_revision(connection, endpoint, fields, endpoint.created_at, endpoint.created_by)
            if key is not None:
                connection.execute(sa.insert(tables.keys).values(_values(key)))
            _insert_secrets(connection, endpoint.id, secrets)
            self._insert_events(connection, events)
        self._count()
        return created

    def endpoint(self, namespace: str, name: str) -> records.Endpoint:
        table = tables.endpoints
        query = sa.select(table).where(table.c.namespace == namespace, sa.or_(table.c.name == name, table.c.id == name))
        found = self._all(records.Endpoint, query)
        if not found:
            raise errors.NotFound(f"There is no endpoint {name!r} in namespace {namespace!r}.")
        return next((one for one in found if one.name == name), found[0])

    def endpoint_by_id(self, endpoint_id: str) -> records.Endpoint | None:
        found = self._all(records.Endpoint, sa.select(tables.endpoints).where(tables.endpoints.c.id == endpoint_id))
        return found[0] if found else None

    def endpoints(self, namespace: str | None = None) -> list[records.Endpoint]:
        query = sa.select(tables.endpoints).order_by(tables.endpoints.c.namespace, tables.endpoints.c.name)
        if namespace is not None:
            query = query.where(tables.endpoints.c.namespace == namespace)
        return self._all(records.Endpoint, query)

    def update_endpoint(
        self,
        endpoint_id: str,
        changes: Mapping[str, Any],
        *,
        expected: int | None = None,
        fields: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        events: Iterable[records.Event] = (),
    ) -> records.Endpoint:
        counted = {**changes, "generation": tables.endpoints.c.generation + 1}
        query = sa.update(tables.endpoints).where(*_unchanged(endpoint_id, expected)).values(counted).returning(*tables.endpoints.c)
        with self._database.write() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise _stale_or_gone(connection, endpoint_id)
            updated = records.Endpoint(*row)
            if fields is not None:
                updated = self._add_revision(connection, updated, fields, updated.updated_at, updated.updated_by)
            if secrets is not None:
                connection.execute(sa.delete(tables.secrets).where(tables.secrets.c.endpoint_id == endpoint_id))
                _insert_secrets(connection, endpoint_id, secrets)
            self._insert_events(connection, events)
        self._count()
        return updated

    def note_endpoint(self, endpoint_id: str, changes: Mapping[str, Any], events: Iterable[records.Event] = ()) -> None:
        query = sa.update(tables.endpoints).where(tables.endpoints.c.id == endpoint_id).values(dict(changes))
        with self._database.write() as connection:
            if changes and connection.execute(query).rowcount == 0:
                return
            self._insert_events(connection, events)
        if changes:
            self._count()

    def delete_endpoint(self, endpoint_id: str, *, expected: int | None = None) -> None:
        with self._database.write() as connection:
            if connection.execute(sa.delete(tables.endpoints).where(*_unchanged(endpoint_id, expected))).rowcount == 0:
                raise _stale_or_gone(connection, endpoint_id)
            connection.execute(sa.delete(tables.replicas).where(tables.replicas.c.endpoint_id == endpoint_id))
        self._count()

    def revisions(self, endpoint_id: str) -> list[records.Revision]:
        table = tables.revisions
        query = sa.select(table).where(table.c.endpoint_id == endpoint_id).order_by(table.c.number)
        return self._all(records.Revision, query)

    def all_revisions(self) -> list[records.Revision]:
        endpoints, revisions = tables.endpoints.c, tables.revisions.c
        wanted = sa.or_(revisions.number == endpoints.serving, revisions.number == endpoints.target)
        query = sa.select(tables.revisions).join(tables.endpoints, sa.and_(endpoints.id == revisions.endpoint_id, wanted))
        return self._all(records.Revision, query.order_by(revisions.endpoint_id, revisions.number))

    def mark_revision(
        self,
        endpoint_id: str,
        number: int,
        *,
        live_at: float | None = None,
        failed_at: float | None = None,
        reason: str = "",
        message: str = "",
        clear: bool = False,
    ) -> None:
        table = tables.revisions
        values: dict[str, Any] = {"failed_at": None, "reason": "", "message": ""} if clear else {}
        if live_at is not None:
            values["live_at"] = sa.func.coalesce(table.c.live_at, live_at)
        if failed_at is not None:
            values |= {"failed_at": failed_at, "reason": reason, "message": message}
        if not values:
            return
        query = sa.update(table).where(table.c.endpoint_id == endpoint_id, table.c.number == number).values(values)
        with self._database.write() as connection:
            marked = connection.execute(query).rowcount
        if marked:
            self._count()

    def secrets(self, endpoint_id: str) -> dict[str, str]:
        query = sa.select(tables.secrets.c.name, tables.secrets.c.value).where(tables.secrets.c.endpoint_id == endpoint_id)
        with self._database.read() as connection:
            return {row.name: row.value for row in connection.execute(query.order_by(tables.secrets.c.name))}

    # Keys

    def add_key(self, key: records.Key) -> None:
        with self._database.write("There is such a key already.") as connection:
            connection.execute(sa.insert(tables.keys).values(_values(key)))
        self._count()

    def key(self, key_id: str) -> records.Key:
        found = self._all(records.Key, sa.select(tables.keys).where(tables.keys.c.id == key_id))
        if not found:
            raise errors.NotFound("There is no such key.")
        return found[0]

    def key_by_digest(self, digest: str) -> records.Key | None:
        found = self._all(records.Key, sa.select(tables.keys).where(tables.keys.c.digest == digest))
        return found[0] if found else None

    def keys(
        self, *, endpoint_id: str | None = None, namespace: str | None = None, kind: str | None = None, owner: str | None = None
    ) -> list[records.Key]:
        table = tables.keys
        query = sa.select(table).order_by(table.c.created_at, table.c.id)
        wanted = ((table.c.endpoint_id, endpoint_id), (table.c.namespace, namespace), (table.c.kind, kind), (table.c.owner, owner))
        for column, value in wanted:
            if value is not None:
                query = query.where(column == value)
        return self._all(records.Key, query)

    def update_key(self, key_id: str, changes: Mapping[str, Any]) -> records.Key:
        query = sa.update(tables.keys).where(tables.keys.c.id == key_id).values(dict(changes)).returning(*tables.keys.c)
        with self._database.write() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise errors.NotFound("There is no such key.")
        self._count()
        return records.Key(*row)

    def note_keys_used(self, used: Mapping[str, float]) -> None:
        if not used:
            return
        table = tables.keys
        earlier = sa.or_(table.c.last_used_at.is_(None), table.c.last_used_at < sa.bindparam("seen"))
        query = sa.update(table).where(table.c.id == sa.bindparam("which"), earlier).values(last_used_at=sa.bindparam("seen"))
        with self._database.write() as connection:
            # In one order, so that two managers that note the same keys do not deadlock.
            connection.execute(query, [{"which": key_id, "seen": at} for key_id, at in sorted(used.items())])

    # Replicas

    def put_replica(self, replica: records.Replica) -> bool:
        table, values = tables.replicas, _values(replica)
        upsert = self._insert(table).values(values).on_conflict_do_update(index_elements=[table.c.id], set_=values)
        with self._database.write() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == replica.id).with_for_update()).one_or_none()
            connection.execute(upsert)
        same = row is not None and _values(records.Replica(*row)) | {"announced_at": replica.announced_at} == values
        if not same:
            self._count()
        return not same

    def replicas(self) -> list[records.Replica]:
        return self._all(records.Replica, sa.select(tables.replicas).order_by(tables.replicas.c.id))

    def remove_replicas(self, ids: Collection[str]) -> None:
        if not ids:
            return
        with self._database.write() as connection:
            removed = connection.execute(sa.delete(tables.replicas).where(tables.replicas.c.id.in_(sorted(ids)))).rowcount
        if removed:
            self._count()

    # Events

    def add_events(self, events: Iterable[records.Event]) -> None:
        events = list(events)
        if not events:
            return
        with self._database.write() as connection:
            self._insert_events(connection, events)

    def events(self, endpoint_id: str, wanted: records.EventsWanted = records.EventsWanted(), *, limit: int = 200) -> list[records.Event]:
        table = tables.events
        query = sa.select(table).where(table.c.endpoint_id == endpoint_id, table.c.id > wanted.after, table.c.at >= wanted.since)
        for name in ("level", "kind", "replica"):
            if (value := getattr(wanted, name)) is not None:
                query = query.where(table.c[name] == value)
        if wanted.before is not None:
            query = query.where(table.c.id < wanted.before)
        if wanted.until is not None:
            query = query.where(table.c.at <= wanted.until)
        if wanted.text is not None:
            query = query.where(sa.func.lower(table.c.message).contains(wanted.text.lower(), autoescape=True))
        return self._all(records.Event, query.order_by(table.c.id.desc()).limit(limit))[::-1]

    # Idempotency

    def remembered(self, scope: str, key: str) -> records.Remembered | None:
        query = sa.select(tables.answers).where(tables.answers.c.scope == scope, tables.answers.c.key == key)
        found = self._all(records.Remembered, query)
        return found[0] if found else None

    def remember(self, answer: records.Remembered) -> None:
        table = tables.answers
        with self._database.write() as connection:
            connection.execute(sa.delete(table).where(table.c.created_at < answer.created_at - ANSWER_LIFETIME_S))
            connection.execute(self._insert(table).values(_values(answer)).on_conflict_do_nothing())

    # Parts of transactions

    def _add_revision(
        self, connection: sa.Connection, endpoint: records.Endpoint, fields: Mapping[str, Any], at: float, by: str
    ) -> records.Endpoint:
        """The caller holds the endpoint's row: revisions of one name are numbered one after the other."""
        counter = self._insert(tables.names).values(namespace=endpoint.namespace, name=endpoint.name, last_revision=1)
        counted = counter.on_conflict_do_update(
            index_elements=["namespace", "name"], set_={"last_revision": tables.names.c.last_revision + 1}
        )
        number = connection.execute(counted.returning(tables.names.c.last_revision)).scalar_one()
        revision = records.Revision(endpoint.id, number, fields, created_at=at, created_by=by)
        connection.execute(sa.insert(tables.revisions).values(_values(revision)))
        changes = {"target": number, "first_revision": endpoint.first_revision or number}
        connection.execute(sa.update(tables.endpoints).where(tables.endpoints.c.id == endpoint.id).values(changes))
        return dataclasses.replace(endpoint, **changes)

    def _insert_events(self, connection: sa.Connection, events: Iterable[records.Event]) -> None:
        named = [_values(event) for event in events]
        ids = sorted({event["endpoint_id"] for event in named})
        if not ids:
            return
        endpoints, table = tables.endpoints.c, tables.events
        present = sa.select(endpoints.id).where(endpoints.id.in_(ids)).with_for_update(read=True, key_share=True)
        kept = set(connection.scalars(present))
        rows = [{name: value for name, value in event.items() if name != "id"} for event in named if event["endpoint_id"] in kept]
        if not rows:
            return
        if not self._database.is_sqlite:
            # One after the other to the end of the transaction: ids become visible in ascending order, so `after` misses none.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(EVENT_LOCK)))
        connection.execute(sa.insert(table), rows)
        for endpoint_id in sorted(kept):
            mine = sa.select(table.c.id).where(table.c.endpoint_id == endpoint_id)
            oldest = mine.order_by(table.c.id.desc()).limit(1).offset(EVENTS_KEPT - 1).scalar_subquery()
            connection.execute(sa.delete(table).where(table.c.endpoint_id == endpoint_id, table.c.id < oldest))

    def _all(self, kind: Callable[..., T], query: sa.Select[Any]) -> list[T]:
        with self._database.read() as connection:
            return [kind(*row) for row in connection.execute(query)]

    def _count(self) -> None:
        # After the commit: whoever reads the new count reads the new rows too.
        self._database.afterwards(self._count_one)

    def _count_one(self) -> None:
        with self._counting:
            self._changes += 1


def _values(record: Any) -> dict[str, Any]:
    """A record's fields, which are its table's columns."""
    return dict(vars(record))


def _unchanged(endpoint_id: str, expected: int | None) -> list[sa.ColumnElement[bool]]:
    """The endpoint, provided it still has the generation that the caller read."""
    mine = tables.endpoints.c.id == endpoint_id
    return [mine] if expected is None else [mine, tables.endpoints.c.generation == expected]


def _stale_or_gone(connection: sa.Connection, endpoint_id: str) -> errors.MoorageError:
    present = connection.execute(sa.select(tables.endpoints.c.id).where(tables.endpoints.c.id == endpoint_id)).one_or_none()
    return errors.NotFound("The endpoint is gone.") if present is None else errors.StaleGeneration()


def _insert_secrets(connection: sa.Connection, endpoint_id: str, secrets: Mapping[str, str]) -> None:
    if secrets:
        connection.execute(
            sa.insert(tables.secrets), [{"endpoint_id": endpoint_id, "name": name, "value": value} for name, value in secrets.items()]
        )
