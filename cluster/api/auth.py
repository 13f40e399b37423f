"""Who calls and whether it may: a platform key becomes an Actor, and the route's rule is held against it.

The one place of the management API that decides about identity and roles; the table is `cluster.roles`'.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import time
from collections.abc import Callable

from starlette.requests import Request

from cluster import control, errors, granting, keys, records, roles
from cluster.actor import Actor
from cluster.store.base import Store


class Authenticator:
    """Callable as a FastAPI dependency; made once by create_app."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def __call__(self, request: Request) -> Actor:
        """The actor behind the request's key, which may use the route.

        Raises InvalidApiKey; Forbidden for an endpoint's key and for too low a role; NotFound for a namespace that is not its own.
        """
        key = self._key(request)
        user = self._store.user(key.owner)
        if user is None or not user.active:
            raise errors.InvalidApiKey
        request.state.actor = actor = self._actor(key, user, request)  # known of refusals too
        self._permit(actor, request)
        return actor

    def _key(self, request: Request) -> records.Key:
        given = bearer(request)
        # The checksum turns away made-up keys before anything is looked up.
        if given is None or keys.key_id(given) is None:
            raise errors.InvalidApiKey
        digest = keys.digest(given)
        row = self._store.key_by_digest(digest)
        if row is None or row.status != "active" or not hmac.compare_digest(row.digest, digest):
            raise errors.InvalidApiKey
        if row.expires_at is not None and row.expires_at <= self._clock():
            raise errors.InvalidApiKey("This API key has expired.")
        if row.kind != keys.PLATFORM:
            raise errors.Forbidden("An endpoint's key calls that endpoint and nothing else: use a platform key here.")
        return row

    def _actor(self, key: records.Key, user: records.User, request: Request) -> Actor:
        role = roles.lesser(user.role, key.role)
        operator = role == roles.OPERATOR
        everything = [row.name for row in self._store.namespaces(None if operator else user.tenant)]
        return Actor(
            user.name,
            user.namespace,
            frozenset(everything) if operator else granting.may_enter(user, everything),
            key.id,
            operator,
            user.tenant,
            role,
            source(request),
            getattr(request.state, "request_id", ""),
        )

    def _permit(self, actor: Actor, request: Request) -> None:
        """Raises Forbidden and NotFound. What no rule names, nobody may do."""
        rule = roles.RULES.get(f"{request.method} {getattr(request.scope.get('route'), 'path', '')}")
        if rule is None:
            raise errors.Forbidden("No role may use this route.")
        place = request.path_params
        if "namespace" in place:
            actor.enter(place["namespace"])
        if actor.may(rule.role):
            return
        if not (rule.owner and actor.may(roles.MEMBER)):
            raise errors.Forbidden(f"This needs the role {rule.role}, and this key has the role {actor.role or 'none'}.")
        endpoint = self._endpoint(place["namespace"], place["name"])
        if endpoint is not None and not actor.decides(endpoint.created_by):
            raise errors.Forbidden(f"This needs the role {rule.role}, or to be {endpoint.created_by or 'nobody'}, whose endpoint it is.")

    def _endpoint(self, namespace: str, name: str) -> records.Endpoint | None:
        """None: the route's handler says that there is none."""
        if re.fullmatch(control.NAME_OR_ID, name):
            with contextlib.suppress(errors.NotFound):
                return self._store.endpoint(namespace, name)
        return None


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


def source(request: Request) -> str:
    """The last address of X-Forwarded-For: the edge removes what a client sends and writes its own."""
    given = request.headers.getlist("x-forwarded-for")
    return given[-1].rpartition(",")[2].strip()[:64] if given else request.client.host if request.client else ""
