"""Who may call what, in Python: for requests that HAProxy could not decide alone, and for streams that run already.

HAProxy decides by the same rules, from maps that are made here (`gateway.program` programs them), and decides again when a
request re-enters it. One table of cases is tested on both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from cluster import errors, keys, roles, snapshot

Grants = Mapping[str, tuple[str, ...]]

VIEWER = "V"
ANY_TENANT = "*"
VIEWERS_CALL_PUBLIC = "A key with the role viewer calls public endpoints only: this one takes a key with the role member."


@dataclasses.dataclass(frozen=True)
class Identity:
    """A verified key, as HAProxy's key map has it."""

    key_id: str
    kind: str
    namespace: str
    endpoint: str = ""
    tenant: str = ""
    scope: str = ""
    viewer: bool = False

    @classmethod
    def parse(cls, value: str) -> Identity | None:
        """From the header X-Edge-Key, an entry of the key map; None when the request has no valid key."""
        if not value:
            return None
        key_id, marked, namespace, endpoint, tenant, scope = value.split("|")[:6]
        viewer = marked == VIEWER
        return cls(key_id, keys.PLATFORM if viewer else marked.lower(), namespace, endpoint, tenant, scope, viewer)

    @classmethod
    def of(cls, row: snapshot.Key) -> Identity:
        """What `parse` finds in the entry of this key."""
        return cls(row.id, row.kind, row.namespace, row.endpoint, row.tenant, row.scope, mark(row) == VIEWER)


def mark(row: snapshot.Key) -> str:
    """The kind of a key as its map entry has it: `p` and `e` are all that the usual way takes, what expires is `P` or `E`."""
    if row.kind == keys.PLATFORM and row.role == roles.VIEWER:
        return VIEWER
    return row.kind.upper() if row.expires_at else row.kind


def may_call(identity: Identity | None, row: snapshot.Endpoint, grants: Grants) -> bool:
    """Whether this key may call the endpoint (from some network)."""
    return row.type == snapshot.PUBLIC or (identity is not None and not identity.viewer and _reaches(identity, row, grants))


def check(identity: Identity | None, row: snapshot.Endpoint | None, grants: Grants) -> snapshot.Endpoint:
    """The endpoint. Raises ModelNotFound for one that the key may not know of, Forbidden for one that a viewer's key may not call."""
    if row is not None and may_call(identity, row, grants):
        return row
    if row is not None and identity is not None and _reaches(identity, row, grants):
        raise errors.Forbidden(VIEWERS_CALL_PUBLIC)
    raise errors.ModelNotFound(param="model")


def _reaches(identity: Identity, row: snapshot.Endpoint, grants: Grants) -> bool:
    if identity.kind != keys.PLATFORM:
        return identity.endpoint == row.path
    if identity.namespace == row.namespace:
        return True
    if row.type == snapshot.PRIVATE:
        return False
    shared = ANY_TENANT in row.shared_with or (bool(identity.tenant) and identity.tenant in row.shared_with)
    return shared or row.namespace in grants.get(identity.scope, ())


def callable_by(identity: Identity | None, now: snapshot.Snapshot) -> Iterator[snapshot.Endpoint]:
    """The endpoints that this key may call, its own namespace's first."""
    rows = [row for row in now.endpoints.values() if may_call(identity, row, now.grants)]
    own = identity.namespace if identity else ""
    return iter(sorted(rows, key=lambda row: (row.namespace != own, row.path)))


def called(identity: Identity | None, row: snapshot.Endpoint) -> str:
    """What this key calls the endpoint in `model`: the bare name in its own namespace."""
    return row.name if identity and identity.namespace == row.namespace else row.path


def find(identity: Identity | None, model: str, now: snapshot.Snapshot) -> snapshot.Endpoint:
    """The endpoint that `model` means for this key: `name`, `namespace/name`, either with `:adapter` or `:member`.

    Raises ModelNotFound and Forbidden; whether there is that member is for `members.slot` to say.
    """
    name, colon, part = model.partition(":")
    path = name if "/" in name else f"{identity.namespace if identity else ''}/{name}"
    row = check(identity, now.endpoints.get(path), now.grants)
    if colon and not row.members and part not in row.adapters:
        raise errors.ModelNotFound(param="model")
    return row


def grants_map(grants: Grants) -> dict[str, str]:
    """HAProxy's map of grants: `scope|namespace`."""
    return {f"{scope}|{namespace}": "1" for scope, namespaces in grants.items() for namespace in namespaces}


def shares_map(endpoints: Iterable[snapshot.Endpoint]) -> dict[str, str]:
    """HAProxy's map of shares: `ns/name|tenant`, or `ns/name|*`."""
    return {f"{row.path}|{tenant}": "1" for row in endpoints for tenant in row.shared_with}
