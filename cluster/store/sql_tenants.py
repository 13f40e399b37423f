"""Tenants, namespaces and users in SQL; see `cluster.store.tenant_store.TenantStore` for what each method promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from cluster import keys as api_keys
from cluster import records, roles
from cluster.store import tables, tenant_words
from cluster.store.database import Database
from cluster.store.sql_models import Insert
from cluster.store.usage_tables import capacity_days, usage_days

T = TypeVar("T")

CONTENTS: Mapping[str, sa.Table] = {"endpoints": tables.endpoints, "models": tables.models, "secrets and integrations": tables.credentials}
"""What may lie in a namespace: tables with the columns `namespace` and `name`."""
OWNED = (tables.keys.c.owner, tables.endpoints.c.created_by, tables.models.c.owner, tables.credentials.c.owner)
"""What may be a user's."""


class SqlTenants:
    """Part of SqlStore, whose connection it uses."""

    _database: Database
    _insert: Insert
    _count: Callable[[], None]

    # Tenants

    def add_tenant(self, tenant: records.Tenant) -> None:
        with self._database.write(tenant_words.taken("tenant", tenant.name).message) as connection:
            connection.execute(sa.insert(tables.tenants).values(vars(tenant)))
            _set_tenant_apart(connection, tenant)

    def tenant(self, name: str) -> records.Tenant:
        found = self._rows(records.Tenant, tables.tenants, tables.tenants.c.name == name)
        if not found:
            raise tenant_words.missing("tenant", name)
        return found[0]

    def tenants(self) -> list[records.Tenant]:
        return self._rows(records.Tenant, tables.tenants)

    def update_tenant(self, name: str, changes: Mapping[str, Any]) -> records.Tenant:
        with self._database.write() as connection:
            return records.Tenant(*_updated(connection, tables.tenants, "tenant", name, changes))

    def delete_tenant(self, name: str) -> None:
        with self._database.write() as connection:
            _lock(connection, tables.tenants, "tenant", name)
            inside = {"namespaces": tables.namespaces, "users": tables.users}
            found = {what: _names(connection, table, table.c.tenant == name) for what, table in inside.items()}
            tenant_words.refuse_full("tenant", name, found)
            connection.execute(sa.delete(tables.tenants).where(tables.tenants.c.name == name))

    # Namespaces

    def add_namespace(self, name: str, at: float = 0.0) -> None:
        row, tenant, table = records.Namespace(name, name, created_at=at), records.Tenant(name, created_at=at), tables.namespaces
        new = self._insert(table).values(vars(row)).on_conflict_do_nothing().returning(table.c.name)
        its = self._insert(tables.tenants).values(vars(tenant)).on_conflict_do_nothing().returning(tables.tenants.c.name)
        with self._database.write() as connection:
            made = connection.execute(new).one_or_none()
            if made is not None:
                _set_namespace_apart(connection, row)
                if connection.execute(its).one_or_none() is not None:
                    _set_tenant_apart(connection, tenant)
        if made is not None:
            self._count()

    def create_namespace(self, namespace: records.Namespace) -> None:
        with self._database.write(tenant_words.taken("namespace", namespace.name).message) as connection:
            _lock(connection, tables.tenants, "tenant", namespace.tenant, share=True)
            connection.execute(sa.insert(tables.namespaces).values(vars(namespace)))
            _set_namespace_apart(connection, namespace)
        self._count()

    def namespace(self, name: str) -> records.Namespace | None:
        found = self._rows(records.Namespace, tables.namespaces, tables.namespaces.c.name == name)
        return found[0] if found else None

    def namespaces(self, tenant: str | None = None) -> list[records.Namespace]:
        table = tables.namespaces
        return self._rows(records.Namespace, table, *(() if tenant is None else (table.c.tenant == tenant,)))

    def update_namespace(self, name: str, changes: Mapping[str, Any]) -> records.Namespace:
        with self._database.write() as connection:
            row = _updated(connection, tables.namespaces, "namespace", name, changes)
        self._count()
        return records.Namespace(*row)

    def delete_namespace(self, name: str) -> None:
        with self._database.write() as connection:
            _lock(connection, tables.namespaces, "namespace", name)
            found = {what: _names(connection, table, table.c.namespace == name) for what, table in CONTENTS.items()}
            homes = _names(connection, tables.users, tables.users.c.namespace == name)
            tenant_words.refuse_full("namespace", name, {**found, "users at home there": homes})
            connection.execute(sa.delete(tables.namespaces).where(tables.namespaces.c.name == name))
        self._count()

    # Users

    def add_user(self, user: records.User) -> None:
        with self._database.write(tenant_words.taken("user", user.name).message) as connection:
            _lock(connection, tables.tenants, "tenant", user.tenant, share=True)
            _lock(connection, tables.namespaces, "namespace", user.namespace, share=True)
            connection.execute(sa.insert(tables.users).values(vars(user)))
        self._count()

    def user(self, name: str) -> records.User | None:
        found = self._rows(records.User, tables.users, tables.users.c.name == name)
        return found[0] if found else None

    def users(self, tenant: str | None = None) -> list[records.User]:
        table = tables.users
        return self._rows(records.User, table, *(() if tenant is None else (table.c.tenant == tenant,)))

    def update_user(self, name: str, changes: Mapping[str, Any]) -> records.User:
        with self._database.write() as connection:
            _keep_an_operator(connection, name, changes)
            row = _updated(connection, tables.users, "user", name, changes)
        self._count()
        return records.User(*row)

    def delete_user(self, name: str, at: float) -> list[records.Key]:
        table = tables.keys
        mine = (table.c.owner == name, table.c.kind == api_keys.PLATFORM, table.c.status != "revoked")
        revoke = sa.update(table).where(*mine).values(status="revoked", updated_at=at).returning(*table.c)
        with self._database.write() as connection:
            _keep_an_operator(connection, name, None)
            connection.execute(sa.delete(tables.users).where(tables.users.c.name == name))
            revoked = [records.Key(*row) for row in connection.execute(revoke)]
            for owner in OWNED:
                connection.execute(sa.update(owner.table).where(owner == name).values({owner: tenant_words.deleted(name)}))
        self._count()
        return sorted(revoked, key=lambda row: (row.created_at, row.id))

    def _rows(self, kind: Callable[..., T], table: sa.Table, *wanted: sa.ColumnElement[bool]) -> list[T]:
        with self._database.read() as connection:
            return [kind(*row) for row in connection.execute(sa.select(table).where(*wanted).order_by(table.c.name))]


def _set_namespace_apart(connection: sa.Connection, new: records.Namespace) -> None:
    """What was used in an earlier namespace of that name is no longer found under it."""
    label, names = tenant_words.former(new.name, new.created_at), tables.names
    connection.execute(sa.update(names).where(names.c.namespace == new.name).values(former=names.c.last_revision))
    for table in (usage_days, capacity_days):
        connection.execute(sa.update(table).where(table.c.namespace == new.name).values(namespace=label))


def _set_tenant_apart(connection: sa.Connection, new: records.Tenant) -> None:
    label = tenant_words.former(new.name, new.created_at)
    connection.execute(sa.update(usage_days).where(usage_days.c.tenant == new.name).values(tenant=label))


def _lock(connection: sa.Connection, table: sa.Table, kind: str, name: str, *, share: bool = False) -> Sequence[Any]:
    """The row, which nobody else removes (`share`) or changes to the end of the transaction. Raises NotFound."""
    row = connection.execute(sa.select(table).where(table.c.name == name).with_for_update(read=share)).one_or_none()
    if row is None:
        raise tenant_words.missing(kind, name)
    return row


def _updated(connection: sa.Connection, table: sa.Table, kind: str, name: str, changes: Mapping[str, Any]) -> Sequence[Any]:
    row = connection.execute(sa.update(table).where(table.c.name == name).values(dict(changes)).returning(*table.c)).one_or_none()
    if row is None:
        raise tenant_words.missing(kind, name)
    return row


def _names(connection: sa.Connection, table: sa.Table, wanted: sa.ColumnElement[bool]) -> list[str]:
    return list(connection.scalars(sa.select(table.c.name).where(wanted).order_by(table.c.name)))


def _keep_an_operator(connection: sa.Connection, name: str, changes: Mapping[str, Any] | None) -> None:
    """All operators' rows are locked, in one order, so that two who demote each other do it one after the other."""
    users = tables.users
    operators = sa.select(users).where(users.c.role == roles.OPERATOR).order_by(users.c.name).with_for_update()
    found = [records.User(*row) for row in connection.execute(operators)]
    others = sum(1 for one in found if tenant_words.is_operator(one) and one.name != name)
    tenant_words.refuse_last_operator(records.User(*_lock(connection, users, "user", name)), changes, others)
