"""Who calls: a platform key becomes an Actor. The one place of the management API that decides about identity."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from cluster import errors, keys
from cluster.actor import Actor
from cluster.store.base import Store

OPERATOR = "admin"
"""The namespace whose platform keys may act in all namespaces."""


class Authenticator:
    """Callable as a FastAPI dependency; made once by create_app."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, request: Request) -> Actor:
        """The actor behind the request's key. Raises InvalidApiKey, and Forbidden for a valid key of an endpoint."""
        given = bearer(request)
        # The checksum turns away made-up keys before anything is looked up.
        if given is None or keys.key_id(given) is None:
            raise errors.InvalidApiKey
        digest = keys.digest(given)
        row = self._store.key_by_digest(digest)
        if row is None or row.status != "active" or not hmac.compare_digest(row.digest, digest):
            raise errors.InvalidApiKey
        if row.kind != keys.PLATFORM:
            raise errors.Forbidden("An endpoint's key calls that endpoint and nothing else: use a platform key here.")
        operator = row.namespace == OPERATOR
        namespaces = frozenset(self._store.namespaces()) if operator else frozenset({row.namespace})
        request.state.actor = actor = Actor(row.owner or row.namespace, row.namespace, namespaces, row.id, operator)
        return actor


def bearer(request: Request) -> str | None:
    """The key that a request shows, valid or not; None when there is none, or more than one."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        return None
    header = headers[0] if headers else ""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return request.headers.get("x-api-key") if not header else None
