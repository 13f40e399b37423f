"""Who belongs where: the reconciler's copy of namespaces and users, and what the snapshot says of them.

`Snapshot.grants` tells in which namespaces a platform key may call: all of its user's tenant, or those that its user was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from cluster import records


def of_tenant(tenant: str) -> str:
    """The grant of those who may enter all of a tenant."""
    return f"t:{tenant}"


def of_user(user: str) -> str:
    """The grant of one who may enter some namespaces of a tenant; also the hint that this user or its keys have changed."""
    return f"u:{user}"


def of_namespace(namespace: str) -> str:
    """The hint that a namespace was made or deleted."""
    return f"n:{namespace}"


def scope(user: records.User) -> str:
    """The grant that a user's keys call by."""
    return of_user(user.name) if user.namespaces else of_tenant(user.tenant)


def may_enter(user: records.User, of_its_tenant: Iterable[str]) -> frozenset[str]:
    """The namespaces of its tenant that a user may act in: its home always."""
    everything = frozenset(of_its_tenant)
    return everything & {user.namespace, *user.namespaces} if user.namespaces else everything


@dataclasses.dataclass(frozen=True)
class Membership:
    """Namespaces and users by name."""

    namespaces: Mapping[str, records.Namespace] = dataclasses.field(default_factory=dict)
    users: Mapping[str, records.User] = dataclasses.field(default_factory=dict)

    def tenant_of(self, namespace: str) -> str:
        """'' for a namespace that is gone."""
        found = self.namespaces.get(namespace)
        return found.tenant if found is not None else ""


@dataclasses.dataclass(frozen=True)
class Changed:
    """What is new since the last look."""

    grants: Mapping[str, tuple[str, ...] | None]
    namespaces: frozenset[str]
    """Those that are another tenant's than before."""
    users: frozenset[str]
    """Those that came, went or were changed."""


class Grants:
    """The grants as they were told last. Not thread-safe."""

    def __init__(self) -> None:
        self._seen = Membership()
        self._told: dict[str, tuple[str, ...]] = {}
        self._of_tenant: dict[str, set[str]] = {}

    def changes(self, now: Membership) -> Changed:
        """What changed since the last call; nothing at all costs nothing, a change of one costs one."""
        before, self._seen = self._seen, now
        if now is before:
            return Changed({}, frozenset(), frozenset())
        namespaces = _different(before.namespaces, now.namespaces) if now.namespaces is not before.namespaces else set()
        users = _different(before.users, now.users) if now.users is not before.users else set()
        tenants = {tenant for name in namespaces for tenant in (before.tenant_of(name), now.tenant_of(name)) if tenant}
        moved = frozenset(name for name in namespaces if before.tenant_of(name) != now.tenant_of(name))
        for name in moved:
            self._of_tenant.setdefault(before.tenant_of(name), set()).discard(name)
            self._of_tenant.setdefault(now.tenant_of(name), set()).add(name)
        wanted = {of_tenant(tenant): tuple(sorted(self._of_tenant.get(tenant, ()))) for tenant in tenants}
        affected = users | {user.name for user in now.users.values() if user.namespaces and user.tenant in tenants}
        wanted.update({of_user(name): _granted(now, name, self._of_tenant) for name in affected})
        return Changed(self._news(wanted), moved, frozenset(users))

    def _news(self, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...] | None]:
        """Those that say something else than before; an empty one is none."""
        found: dict[str, tuple[str, ...] | None] = {}
        for name, grant in wanted.items():
            if grant != self._told.get(name, ()):
                found[name] = grant or None
                self._told.pop(name, None)
                self._told.update({name: grant} if grant else {})
        return found


def _granted(now: Membership, name: str, of_tenants: Mapping[str, set[str]]) -> tuple[str, ...]:
    """What is told of one user: nothing of one who may enter all of its tenant."""
    user = now.users.get(name)
    if user is None or not user.active or not user.namespaces:
        return ()
    return tuple(sorted(may_enter(user, of_tenants.get(user.tenant, ()))))


def _different(before: Mapping[str, object], now: Mapping[str, object]) -> set[str]:
    """Names of other rows than before."""
    return {name for name, row in now.items() if before.get(name) is not row} | (before.keys() - now.keys())
