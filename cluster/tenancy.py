"""The commands on tenants, their namespaces and users, and what others share with one's tenant.

The routes' rules have been held already (`cluster.roles`); here is decided whose tenant it is, and that nobody hands out or
touches more than it has itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator

from cluster import errors, granting, records, roles, snapshot
from cluster import spec as specs
from cluster.actor import Actor
from cluster.resource import Resource
from cluster.store.base import Store

Role = Literal["viewer", "member", "admin", "operator"]
USER_PATTERN = r"[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?"


def _named(value: str) -> str:
    if not re.fullmatch(specs.TENANT_PATTERN, value):
        raise ValueError("a name has 1 to 40 lower-case letters, digits and hyphens, no hyphen first or last, nor two in a row")
    return value


class NewTenant(Resource):
    """What an operator says of a new tenant."""

    name: str
    description: str = Field("", max_length=2000)
    _check = field_validator("name")(_named)


class NewNamespace(Resource):
    """What an admin says of a new namespace."""

    name: str
    tenant: str | None = Field(None, max_length=100)
    """Left out: one's own."""
    description: str = Field("", max_length=2000)
    _check = field_validator("name")(_named)


class Described(Resource):
    """What may be changed of a tenant or a namespace."""

    description: str = Field(max_length=2000)


class NewUser(Resource):
    """What an admin says of a new user, who can do nothing before there is a key for it."""

    name: str
    kind: Literal["person", "service"] = "person"
    tenant: str | None = Field(None, max_length=100)
    """Left out: one's own."""
    namespace: str | None = Field(None, max_length=100)
    """Where it is at home; left out: the first of `namespaces`, or else the only one of its tenant."""
    role: Role = "member"
    namespaces: tuple[str, ...] = Field((), max_length=256)
    """The namespaces of its tenant that it may act in beside its home; empty = all."""
    description: str = Field("", max_length=2000)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(USER_PATTERN, value):
            raise ValueError(
                "a user's name has 1 to 64 lower-case letters, digits, dots, hyphens, underscores and @, none of these at an end"
            )
        return value


class EditedUser(Resource):
    """What may be changed of a user; what is left out stays."""

    role: Role = "member"
    namespaces: tuple[str, ...] = Field((), max_length=256)
    active: bool = True
    description: str = Field("", max_length=2000)


class Tenancy:
    """One per manager."""

    def __init__(self, *, store: Store, hint: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._hint = hint
        self._clock = clock

    # Tenants

    def tenants(self, actor: Actor) -> list[records.Tenant]:
        """All for an operator, else the actor's own."""
        return [row for row in self._store.tenants() if actor.reaches(row.name)]

    def tenant(self, actor: Actor, name: str) -> records.Tenant:
        """Raises NotFound, for another's too."""
        if not actor.reaches(name):
            raise errors.NotFound(f"There is no tenant {name[:60]!r} that you may see.")
        return self._store.tenant(name)

    def add_tenant(self, new: NewTenant) -> records.Tenant:
        """Without namespaces and users. Raises AlreadyExists."""
        row = records.Tenant(new.name, new.description, self._clock())
        self._store.add_tenant(row)
        return row

    def edit_tenant(self, name: str, edited: Described) -> records.Tenant:
        """Raises NotFound."""
        return self._store.update_tenant(name, {"description": edited.description})

    def delete_tenant(self, name: str) -> None:
        """Forget an empty one; endpoints are no longer shared with it. Raises NotFound, Conflict."""
        with self._store.together():
            self._store.delete_tenant(name)
            shared = [row for row in self._store.endpoints() if name in row.spec.get("sharedWith", ())]
            for row in shared:
                # Or another tenant of that name, some day, would find them shared with it.
                spec = {**row.spec, "sharedWith": [one for one in row.spec["sharedWith"] if one != name]}
                self._store.update_endpoint(row.id, {"spec": spec, "updated_at": self._clock()}, expected=row.generation)
        for row in shared:
            self._hint(row.id)

    # Namespaces

    def namespaces(self, actor: Actor) -> list[records.Namespace]:
        """Those that the actor may enter."""
        return [row for row in self._store.namespaces() if row.name in actor.namespaces]

    def namespace(self, actor: Actor, name: str) -> records.Namespace:
        """Raises NotFound."""
        found = self._store.namespace(actor.enter(name))
        if found is None:
            raise errors.NotFound(f"There is no namespace {name[:60]!r}.")
        return found

    def add_namespace(self, actor: Actor, new: NewNamespace) -> records.Namespace:
        """In the actor's tenant, an operator's in any. Raises AlreadyExists, NotFound."""
        row = records.Namespace(new.name, self._tenant_for(actor, new.tenant), new.description, self._clock())
        self._store.create_namespace(row)
        self._hint(granting.of_namespace(row.name))
        return row

    def edit_namespace(self, actor: Actor, name: str, edited: Described) -> records.Namespace:
        """Raises NotFound."""
        row = self._store.update_namespace(actor.enter(name), {"description": edited.description})
        self._hint(granting.of_namespace(name))
        return row

    def delete_namespace(self, actor: Actor, name: str) -> None:
        """Raises NotFound, and Conflict while something lies in it."""
        self._store.delete_namespace(actor.enter(name))
        self._hint(granting.of_namespace(name))

    # Users

    def users(self, actor: Actor) -> list[records.User]:
        """All for an operator, else those of the actor's tenant."""
        return self._store.users(None if actor.operator else actor.tenant)

    def user(self, actor: Actor, name: str) -> records.User:
        """Raises NotFound, for another tenant's too."""
        found = self._store.user(name)
        if found is None or not actor.reaches(found.tenant):
            raise errors.NotFound(f"There is no user {name[:60]!r} that you may see.")
        return found

    def add_user(self, actor: Actor, new: NewUser) -> records.User:
        """Raises InvalidRequest, Forbidden for a role above the actor's, AlreadyExists, NotFound."""
        tenant = self._tenant_for(actor, new.tenant)
        _refuse_more(actor, new.role)
        _check_reach(new.role, new.namespaces)
        known = [row.name for row in self._store.namespaces(tenant)]
        _check_namespaces((*new.namespaces, *((new.namespace,) if new.namespace else ())), tenant, known)
        home, now = new.namespace or _home(new.namespaces, tenant, known), self._clock()
        row = records.User(new.name, tenant, home, new.kind, new.role, new.namespaces, True, new.description, now, now)
        self._store.add_user(row)
        self._hint(granting.of_user(row.name))
        return row

    def edit_user(self, actor: Actor, name: str, edited: EditedUser) -> records.User:
        """Change what is given. Raises InvalidRequest, Forbidden, and Conflict where no active operator would be left."""
        before = self._touched(actor, name)
        changes: dict[str, Any] = {field: getattr(edited, field) for field in edited.model_fields_set}
        _refuse_more(actor, changes.get("role", before.role))
        _check_reach(changes.get("role", before.role), changes.get("namespaces", before.namespaces))
        if "namespaces" in changes:
            _check_namespaces(changes["namespaces"], before.tenant, [row.name for row in self._store.namespaces(before.tenant)])
        row = self._store.update_user(name, {**changes, "updated_at": self._clock()})
        self._hint(granting.of_user(name))
        return row

    def delete_user(self, actor: Actor, name: str) -> None:
        """With it go its keys. Raises Forbidden, and Conflict where no active operator would be left."""
        self._touched(actor, name)
        self._store.delete_user(name, self._clock())
        self._hint(granting.of_user(name))

    # Sharing

    def shared(self, actor: Actor) -> list[records.Endpoint]:
        """Endpoints of other tenants that are shared with the actor's."""
        tenants = {row.name: row.tenant for row in self._store.namespaces()}
        return [
            row
            for row in self._store.endpoints()
            if tenants.get(row.namespace) != actor.tenant
            and {actor.tenant, "*"}.intersection(row.spec.get("sharedWith", ()))
            and row.spec.get("type") != snapshot.PRIVATE
        ]

    # Parts

    def _tenant_for(self, actor: Actor, given: str | None) -> str:
        tenant = given or actor.tenant
        if not actor.reaches(tenant):
            raise errors.NotFound(f"There is no tenant {tenant[:60]!r} that you may see.")
        return tenant

    def _touched(self, actor: Actor, name: str) -> records.User:
        """The user, of whom nobody with a lesser role may change anything."""
        found = self.user(actor, name)
        _refuse_more(actor, found.role)
        return found


def _refuse_more(actor: Actor, role: str) -> None:
    if not actor.may(role):
        raise errors.Forbidden(f"The role {role} is more than yours, {actor.role}: an operator can do this.", param="role")


def _check_reach(role: str, namespaces: tuple[str, ...]) -> None:
    if namespaces and roles.rank(role) >= roles.rank(roles.ADMIN):
        raise errors.InvalidRequest(f"The role {role} reaches all of its tenant: leave namespaces empty.", param="namespaces")


def _check_namespaces(names: tuple[str, ...], tenant: str, known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise errors.InvalidRequest(f"The tenant {tenant} has no namespace {name[:60]!r}: create it first.", param="namespaces")


def _home(namespaces: tuple[str, ...], tenant: str, known: list[str]) -> str:
    if namespaces:
        return namespaces[0]
    if tenant in known or len(known) == 1:
        return tenant if tenant in known else known[0]
    text = "create one first" if not known else f"name one of {', '.join(known[:5])}"
    raise errors.InvalidRequest(f"A user is at home in a namespace of the tenant {tenant}: {text}.", param="namespace")
