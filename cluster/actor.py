"""Who acts: travels with every command and is written into every event."""

from __future__ import annotations

import dataclasses

from cluster import errors, roles


@dataclasses.dataclass(frozen=True)
class Actor:
    """A person or service account behind a platform key. `namespaces` are those it may act in; an operator may in all."""

    name: str
    namespace: str
    namespaces: frozenset[str]
    key_id: str = ""
    operator: bool = False
    tenant: str = ""
    role: str = roles.ADMIN
    """What it may do in its tenant: the lesser of its user's role and its key's."""
    source: str = ""
    """Address that the request came from, as the edge saw it."""
    request_id: str = ""

    def enter(self, namespace: str) -> str:
        """The namespace, if the actor may act in it. A foreign one does not exist for it: raises NotFound."""
        if namespace not in self.namespaces:
            raise errors.NotFound(f"There is no namespace {namespace[:60]!r} that this key may use.")
        return namespace

    def may(self, role: str) -> bool:
        """Whether the actor may do what `role` may, where it may act at all."""
        return roles.rank(self.role) >= max(0, roles.rank(role))

    def decides(self, owner: str) -> bool:
        """Whether the actor decides about something of `owner`'s: its own, or anybody's in its tenant."""
        return self.may(roles.ADMIN) or (self.may(roles.MEMBER) and self.name == owner)

    def reaches(self, tenant: str) -> bool:
        """Whether the actor may act in that tenant at all: its own, or any for an operator."""
        return self.operator or self.tenant == tenant
