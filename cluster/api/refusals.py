"""Rows of the audit log for what identified actors were refused. Who cannot be identified is in the edge's access log alone.

A key that tries the same again and again fills no disk: further attempts of a kind are counted, and make one row a minute.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import audit, errors
from cluster.actor import Actor
from cluster.api import naming, trail

log = logging.getLogger(__name__)
WINDOW_S = 60.0
"""For so long after an attempt that made a row, others of its kind are only counted."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What an actor was refused, with which error."""

    actor: Actor
    action: str
    resource: str
    namespace: str
    status: int
    code: str

    @property
    def kind(self) -> tuple[str, str, int]:
        """Attempts of one kind are counted together."""
        return self.actor.key_id, self.action, self.status


@dataclasses.dataclass
class _Window:
    """A minute of attempts of one kind. `last` is the newest one that has no row of its own."""

    began: float
    more: int = 0
    last: Attempt | None = None


class Counter:
    """Writes the rows; thread-safe."""

    def __init__(self, log: audit.AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, int], _Window] = {}

    def add(self, attempt: Attempt) -> bool:
        """Count an attempt; True when it was the first of a kind, and got its row."""
        self.flush()
        with self._lock:
            window = self._windows.get(attempt.kind)
            if window is not None:
                window.more, window.last = window.more + 1, attempt
                return False
            self._windows[attempt.kind] = _Window(self._clock())
        self._append(attempt, {"code": attempt.code})
        return True

    def flush(self) -> None:
        """Write a row for what was counted in the minutes that have ended."""
        now = self._clock()
        with self._lock:
            over = {kind: window for kind, window in self._windows.items() if now - window.began >= WINDOW_S}
            for kind in over:
                del self._windows[kind]
        for window in over.values():
            if window.last is not None:
                self._append(window.last, {"code": window.last.code, "times": window.more})

    def _append(self, one: Attempt, detail: dict[str, Any]) -> None:
        try:
            self._log.append(one.actor, one.action, one.resource, detail, namespace=one.namespace, outcome="refused", status=one.status)
        except errors.MoorageError as exc:  # it is refused in any case
            log.warning("a refused %s of key %s has no row in the audit log: %s", one.action, one.actor.key_id, exc.message)


class Refusals:
    """Middleware: looks at each answer with an error."""

    def __init__(self, app: ASGIApp, log: audit.AuditLog, routes: Collection[BaseRoute]) -> None:
        self._app = app
        self._counter = Counter(log)
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                attempt = self._attempt(scope, message)
                if attempt is not None and await asyncio.to_thread(self._counter.add, attempt):
                    loop = asyncio.get_running_loop()
                    loop.call_later(WINDOW_S, lambda: loop.run_in_executor(None, self._counter.flush))
            await send(message)

        await self._app(scope, receive, watched)

    def _attempt(self, scope: Scope, message: Message) -> Attempt | None:
        """What there is to be said of a refusal; None where nobody, or nothing worth a row, was refused."""
        actor, route, status = scope.get("state", {}).get("actor"), scope.get("route"), message["status"]
        if not isinstance(actor, Actor) or route is None:
            return None
        values = scope.get("path_params", {})
        namespace = str(values.get("namespace", ""))
        foreign = status == 404 and bool(namespace) and namespace not in actor.namespaces
        if scope["method"] not in trail.CHANGING and status not in (401, 403) and not foreign:
            return None
        readable = {one.path for one in self._routes if isinstance(one, APIRoute) and "GET" in one.methods}
        name = naming.of(scope["method"], route.path, readable)
        code = Headers(raw=message["headers"]).get("x-error-code", "")
        return Attempt(actor, name.action, name.resource(values), namespace, status, code)
