"""Who acts: travels with every command and is written into every event."""

from __future__ import annotations

import dataclasses

from cluster import errors


@dataclasses.dataclass(frozen=True)
class Actor:
    """A person or service account behind a platform key. `namespaces` are those it may act in; an operator may in all."""

    name: str
    namespace: str
    namespaces: frozenset[str]
    key_id: str = ""
    operator: bool = False

    def enter(self, namespace: str) -> str:
        """The namespace, if the actor may act in it. A foreign one does not exist for it: raises NotFound."""
        if namespace not in self.namespaces:
            raise errors.NotFound(f"There is no namespace {namespace[:60]!r} that this key may use.")
        return namespace
