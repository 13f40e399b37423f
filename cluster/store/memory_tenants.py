"""Tenants, namespaces and users in memory, the twin; see `cluster.store.tenant_store.TenantStore` for what each method promises."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from cluster import keys as api_keys
from cluster import records
from cluster.store import tenant_words

T = TypeVar("T", records.Tenant, records.Namespace, records.User)


class MemoryTenants:
    """Part of MemoryStore, whose lock, count and rows it uses."""

    _lock: threading.RLock
    _changes: int
    _keys: dict[str, records.Key]
    _endpoints: dict[str, records.Endpoint]
    _models: dict[tuple[str, str], records.Model]
    _credentials: dict[tuple[str, str, str], records.Credential]
    _last_revision: Mapping[tuple[str, str], int]
    _keep_under: Callable[[str, str, str], None]

    def _init_tenants(self) -> None:
        self._tenants: dict[str, records.Tenant] = {}
        self._namespaces: dict[str, records.Namespace] = {}
        self._users: dict[str, records.User] = {}
        self._former: dict[tuple[str, str], int] = {}

    # Tenants

    def add_tenant(self, tenant: records.Tenant) -> None:
        with self._lock:
            _refuse_taken(self._tenants, "tenant", tenant.name)
            self._tenants[tenant.name] = tenant
            self._keep_under("tenant", tenant.name, tenant_words.former(tenant.name, tenant.created_at))

    def tenant(self, name: str) -> records.Tenant:
        with self._lock:
            return _found(self._tenants, "tenant", name)

    def tenants(self) -> list[records.Tenant]:
        with self._lock:
            return [self._tenants[name] for name in sorted(self._tenants)]

    def update_tenant(self, name: str, changes: Mapping[str, Any]) -> records.Tenant:
        with self._lock:
            self._tenants[name] = dataclasses.replace(self.tenant(name), **changes)
            return self._tenants[name]

    def delete_tenant(self, name: str) -> None:
        with self._lock:
            self.tenant(name)
            inside = {"namespaces": _names(self.namespaces(name)), "users": _names(self.users(name))}
            tenant_words.refuse_full("tenant", name, inside)
            del self._tenants[name]

    # Namespaces

    def add_namespace(self, name: str, at: float = 0.0) -> None:
        with self._lock:
            if name not in self._namespaces:
                if name not in self._tenants:
                    self.add_tenant(records.Tenant(name, created_at=at))
                self.create_namespace(records.Namespace(name, name, created_at=at))

    def create_namespace(self, namespace: records.Namespace) -> None:
        with self._lock:
            self.tenant(namespace.tenant)
            _refuse_taken(self._namespaces, "namespace", namespace.name)
            self._namespaces[namespace.name] = namespace
            self._keep_under("namespace", namespace.name, tenant_words.former(namespace.name, namespace.created_at))
            self._former.update({place: number for place, number in self._last_revision.items() if place[0] == namespace.name})
            self._changes += 1

    def namespace(self, name: str) -> records.Namespace | None:
        with self._lock:
            return self._namespaces.get(name)

    def namespaces(self, tenant: str | None = None) -> list[records.Namespace]:
        with self._lock:
            found = (self._namespaces[name] for name in sorted(self._namespaces))
            return [one for one in found if tenant in (None, one.tenant)]

    def update_namespace(self, name: str, changes: Mapping[str, Any]) -> records.Namespace:
        with self._lock:
            self._namespaces[name] = dataclasses.replace(_found(self._namespaces, "namespace", name), **changes)
            self._changes += 1
            return self._namespaces[name]

    def delete_namespace(self, name: str) -> None:
        with self._lock:
            _found(self._namespaces, "namespace", name)
            inside: Mapping[str, Iterable[records.Endpoint | records.Model | records.Credential]] = {
                "endpoints": self._endpoints.values(),
                "models": self._models.values(),
                "secrets and integrations": self._credentials.values(),
            }
            found = {what: sorted(row.name for row in rows if row.namespace == name) for what, rows in inside.items()}
            homes = _names(user for user in self.users() if user.namespace == name)
            tenant_words.refuse_full("namespace", name, {**found, "users at home there": homes})
            del self._namespaces[name]
            self._changes += 1

    # Users

    def add_user(self, user: records.User) -> None:
        with self._lock:
            self.tenant(user.tenant)
            _found(self._namespaces, "namespace", user.namespace)
            _refuse_taken(self._users, "user", user.name)
            self._users[user.name] = user
            self._changes += 1

    def user(self, name: str) -> records.User | None:
        with self._lock:
            return self._users.get(name)

    def users(self, tenant: str | None = None) -> list[records.User]:
        with self._lock:
            found = (self._users[name] for name in sorted(self._users))
            return [one for one in found if tenant in (None, one.tenant)]

    def update_user(self, name: str, changes: Mapping[str, Any]) -> records.User:
        with self._lock:
            self._keep_an_operator(name, changes)
            self._users[name] = dataclasses.replace(self._users[name], **changes)
            self._changes += 1
            return self._users[name]

    def delete_user(self, name: str, at: float) -> list[records.Key]:
        with self._lock:
            self._keep_an_operator(name, None)
            del self._users[name]
            mine = [row for row in self._keys.values() if (row.owner, row.kind) == (name, api_keys.PLATFORM) and row.status != "revoked"]
            revoked = [dataclasses.replace(row, status="revoked", updated_at=at) for row in mine]
            self._keys.update({row.id: row for row in revoked})
            self._disown(name)
            self._changes += 1
            return sorted(revoked, key=lambda row: (row.created_at, row.id))

    def _disown(self, name: str) -> None:
        owned: tuple[tuple[dict[Any, Any], str], ...] = (
            *((self._keys, "owner"), (self._endpoints, "created_by")),
            *((self._models, "owner"), (self._credentials, "owner")),
        )
        for rows, field in owned:
            mine = {place: row for place, row in rows.items() if getattr(row, field) == name}
            rows.update({place: dataclasses.replace(row, **{field: tenant_words.deleted(name)}) for place, row in mine.items()})

    def _keep_an_operator(self, name: str, changes: Mapping[str, Any] | None) -> None:
        before = _found(self._users, "user", name)
        others = sum(1 for one in self._users.values() if tenant_words.is_operator(one) and one.name != name)
        tenant_words.refuse_last_operator(before, changes, others)


def _found(rows: Mapping[str, T], kind: str, name: str) -> T:
    if name not in rows:
        raise tenant_words.missing(kind, name)
    return rows[name]


def _refuse_taken(rows: Mapping[str, T], kind: str, name: str) -> None:
    if name in rows:
        raise tenant_words.taken(kind, name)


def _names(rows: Iterable[T]) -> list[str]:
    return [row.name for row in rows]
