"""Writes the audit log: a row for every change, in the change's own transaction, and one for each reading of what clients have asked.

Routes know nothing of it: `recorded` takes them over as they are. What a row says of a change is told by the API's own
answers, which hold no secrets: the GET of the thing before and after, or what a creation answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cluster import audit, errors, keys
from cluster.actor import Actor
from cluster.api import auth, naming
from cluster.api.routes import Route
from cluster.store.base import Store

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
READ_ON_RECORD = frozenset({"/v2/endpoint/{namespace}/{name}/requests/{request}/prompt"})
"""Paths whose GET has its row too: it shows what a client has asked."""
VOLATILE = frozenset({"createdAt", "updatedAt", "lastUsedAt", "generation", "warnings", "url"})
"""Fields that say nothing of what was changed."""
HIDDEN = frozenset({"key", "token", "secret", "password", "value"})
"""Fields that a creation shows once."""
BY_NAME = frozenset({"secrets", "env"})
NAMES_KEPT, LONGEST_NAME = 50, 100


class Witness:
    """The dependency that names the actor; leaves in `request.state.actor` who called, whatever becomes of the request."""

    def __init__(self, authenticate: Callable[[Request], Actor], store: Store) -> None:
        self._authenticate = authenticate
        self._store = store

    def __call__(self, request: Request) -> Actor:
        """The actor, as `authenticate` tells it, and raising what that raises."""
        try:
            actor = self._authenticate(request)
        except (errors.InvalidApiKey, errors.Forbidden, errors.NotFound):
            with contextlib.suppress(errors.Unavailable):
                request.state.actor = getattr(request.state, "actor", None) or self._known(request)
            raise
        request.state.actor = actor
        return actor

    def _known(self, request: Request) -> Actor | None:
        """Whose key was refused; None for what is no key of ours, which is not even looked up."""
        given = auth.bearer(request)
        if given is None or keys.key_id(given) is None:
            return None
        row = self._store.key_by_digest(keys.digest(given))
        if row is None:
            return None
        user = self._store.user(row.owner)
        return Actor(
            row.owner or row.namespace,
            row.namespace,
            frozenset(),
            row.id,
            tenant=user.tenant if user is not None else "",
            role=row.role,
            source=auth.source(request),
            request_id=getattr(request.state, "request_id", ""),
        )


def recorded(routes: Iterable[Route], log: audit.AuditLog, store: Store) -> Iterator[Route]:
    """The routes, those that change something and those of READ_ON_RECORD with a handler that writes its row.

    Raises TypeError for one that this cannot work with.
    """
    found = tuple(routes)
    readers = {route.path: route.handler for route in found if route.method == "GET"}
    for route in found:
        if route.method in CHANGING:
            name = naming.of(route.method, route.path, readers)
            yield dataclasses.replace(route, handler=Recorded(route.handler, name, _reader(name, readers), log, store))
        elif route.path in READ_ON_RECORD:
            yield dataclasses.replace(route, handler=Read(route.handler, naming.of("GET", route.path, readers), None, log, store))
        else:
            yield route


class Recorded:
    """A changing route's handler, whose writes and row are one transaction that begins at the first write."""

    def __init__(
        self,
        handler: Callable[..., Response],
        name: naming.Name,
        reader: Callable[..., Response] | None,
        log: audit.AuditLog,
        store: Store,
    ) -> None:
        functools.update_wrapper(self, handler)
        if inspect.iscoroutinefunction(handler) or "actor" not in inspect.signature(handler).parameters:
            raise TypeError(f"{name.action}: a recorded handler is a plain function that takes the actor")
        self._handler = handler
        self._name = name
        self._reader = reader
        self._log = log
        self._store = store

    def __call__(self, **values: Any) -> Response:
        """As the handler."""
        before: dict[str, Any] = {}
        answer = Response()

        def began() -> None:
            before.update(self._shown(values))

        def ended() -> None:
            self._append(values, before, answer)

        with self._store.from_first_write(began, ended):
            answer = self._handler(**values)
        return answer

    def _append(self, values: Mapping[str, Any], before: Mapping[str, Any], answer: Response) -> None:
        told = _fields(answer)
        after = self._shown(values)
        if not before and not after:  # a creation, or a thing that has no GET of its own
            after = told
        detail: dict[str, Any] = {"changed": differences(before, after)}
        if asked := _names(values.get("body")):
            detail["asked"] = asked
        resource, namespace = self._name.resource(values, told), str(values.get("namespace", ""))
        self._log.append(values["actor"], self._name.action, resource, detail, namespace=namespace, status=answer.status_code)

    def _shown(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the API shows of the thing now; nothing when there is none."""
        if self._reader is None:
            return {}
        wanted = inspect.signature(self._reader).parameters
        with contextlib.suppress(errors.MoorageError):
            return _fields(self._reader(**{name: value for name, value in values.items() if name in wanted}))
        return {}


class Read(Recorded):
    """The handler of a path of READ_ON_RECORD. Nothing is shown before its row is written, and the row has nothing of what is shown."""

    def __call__(self, **values: Any) -> Response:
        """As the handler."""
        answer = self._handler(**values)
        place, namespace = self._name.resource(values), str(values.get("namespace", ""))
        self._log.append(values["actor"], self._name.action, place, {}, namespace=namespace, status=answer.status_code)
        return answer


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted path -> [before, after] of every field that is not the same; None where it is not there."""
    old, new = _flat(before), _flat(after)
    return {name: [old.get(name), new.get(name)] for name in sorted({*old, *new}) if old.get(name) != new.get(name)}


def bare(value: Any) -> Any:
    """A part of an answer without what is shown once, and with secrets and environments by name only."""
    if isinstance(value, list):
        return [bare(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, part in value.items():
        if (name in HIDDEN and isinstance(part, str)) or name in VOLATILE:
            continue
        found[name] = sorted(part) if name in BY_NAME and isinstance(part, dict) else bare(part)
    return found


def _reader(name: naming.Name, readers: Mapping[str, Callable[..., Response]]) -> Callable[..., Response] | None:
    """The GET handler that shows the thing which a route changes, if it needs nothing but what that route has."""
    if name.shown_at is None:
        return None
    handler = readers[name.shown_at]
    needed = {one.name for one in inspect.signature(handler).parameters.values() if one.default is inspect.Parameter.empty}
    known = {*name.parameters, "actor"}
    return handler if needed <= known and not inspect.iscoroutinefunction(handler) else None


def _fields(answer: Response) -> dict[str, Any]:
    """An answer's fields, without the state that changes by itself."""
    found = json.loads(bytes(answer.body) or b"{}")
    if not isinstance(found, dict) or "items" in found:
        return {}
    return {name: value for name, value in bare(found).items() if not (name == "status" and isinstance(value, dict))}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _names(body: object) -> list[str]:
    """The fields that a body has, and never what they say."""
    named = sorted(_flat(body)) if isinstance(body, Mapping) else []
    return [name[:LONGEST_NAME] for name in named[:NAMES_KEPT]]
