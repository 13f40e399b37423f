"""Who may call what, for requests that HAProxy could not decide alone. HAProxy decides again when they re-enter it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from cluster import errors, keys, snapshot


@dataclasses.dataclass(frozen=True)
class Identity:
    """A verified key, as HAProxy's key map has it."""

    key_id: str
    kind: str
    namespace: str
    endpoint: str = ""

    @classmethod
    def parse(cls, value: str) -> Identity | None:
        """From the header X-Edge-Key; None when the request has no valid key."""
        return cls(*value.split("|")[:4]) if value else None


def may_call(identity: Identity | None, row: snapshot.Endpoint) -> bool:
    """Whether this key has access to the endpoint (from some network)."""
    if row.type == snapshot.PUBLIC:
        return True
    if identity is None:
        return False
    return identity.namespace == row.namespace if identity.kind == keys.PLATFORM else identity.endpoint == row.path


def callable_by(identity: Identity | None, now: snapshot.Snapshot) -> Iterator[snapshot.Endpoint]:
    """The endpoints that this key may call, its own namespace's first."""
    rows = [row for row in now.endpoints.values() if may_call(identity, row)]
    own = identity.namespace if identity else ""
    return iter(sorted(rows, key=lambda row: (row.namespace != own, row.path)))


def called(identity: Identity | None, row: snapshot.Endpoint) -> str:
    """What this key calls the endpoint in `model`: the bare name in its own namespace."""
    return row.name if identity and identity.namespace == row.namespace else row.path


def find(identity: Identity | None, model: str, now: snapshot.Snapshot) -> snapshot.Endpoint:
    """The endpoint that `model` means for this key: `name`, `namespace/name`, either with `:adapter` or `:member`.

    Raises ModelNotFound; whether there is that member is for `members.slot` to say.
    """
    name, colon, part = model.partition(":")
    path = name if "/" in name else f"{identity.namespace if identity else ''}/{name}"
    row = now.endpoints.get(path)
    if row is None or not may_call(identity, row) or (colon and not row.members and part not in row.adapters):
        raise errors.ModelNotFound(param="model")
    return row
