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
