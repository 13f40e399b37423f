"""ASGI middleware round a whole engine server: only the edge gets in, what is in flight is counted and metered, drain is announced.

vLLM loads it by `--middleware deployments.guard.Guard`; the echo server wraps itself in it. Requests are authorised by
secret alone, never by path. Who may call which endpoint is the edge's business; stopping the process is the supervisor's.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import time
from collections.abc import Iterable, MutableMapping

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments import adapter_names, engine_stats, engine_words, metering, nap, prompt_log, request_lines, slow_bodies, usage
from deployments.dialects import huggingface, inner, responses, sambastudio

SECRET_HEADER = b"x-engine-secret"
CONTROL_HEADER = b"x-moorage-control"
CONTROL_PREFIX = "/_moorage/"
INTERNAL = "moorage.internal"
"""Set in the scope of requests that the supervisor makes itself (smoke requests)."""


@dataclasses.dataclass(frozen=True)
class Secrets:
    """`edge` opens the engine to HAProxy, `control` the guard's own routes to the supervisor."""

    edge: bytes = dataclasses.field(repr=False)
    control: bytes = dataclasses.field(repr=False)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Secrets:
        """Reads the two secrets and removes them, so that processes the engine starts do not inherit them."""
        return cls(environment.pop("MOORAGE_ENGINE_SECRET", "").encode(), environment.pop("MOORAGE_CONTROL_TOKEN", "").encode())


FROM_ENVIRONMENT = Secrets.take(os.environ)


class Guard:
    """Wraps `app`. Lets a request pass if its one X-Engine-Secret header is the edge's secret; everything else is 403."""

    def __init__(
        self,
        app: ASGIApp,
        secrets: Secrets = FROM_ENVIRONMENT,
        stats: engine_stats.EngineStats = engine_stats.CURRENT,
        *,
        own_routes: bool = False,
        program: bool = False,
        meter: usage.Meter | None = None,
    ) -> None:
        """Raises RuntimeError without secrets: an open engine must not start.

        With `own_routes` the application answers every route in its own words: no dialect is put before it. It is a user's
        `program` if any request may be work, reading ones too.
        """
        if not (secrets.edge and secrets.control):
            raise RuntimeError("MOORAGE_ENGINE_SECRET and MOORAGE_CONTROL_TOKEN must be set in the server's environment")
        self._prompts = prompt_log.PromptLog(slow_bodies.SlowBodies(app if own_routes else _translated(app, stats)))
        self._app = request_lines.RequestLines(self._prompts)
        self._meter = meter or metering.meter()
        self._metered = metering.Metered(self._awake, self._meter, reads=program)
        self._secrets = secrets
        self._stats = stats
        self._inflight = 0
        self._used_at = time.monotonic()
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        internal = _matches(scope["headers"], CONTROL_HEADER, self._secrets.control)
        if internal and scope["path"].startswith(CONTROL_PREFIX):
            await self._control(scope, receive, send)
        elif not _matches(scope["headers"], SECRET_HEADER, self._secrets.edge) or (not internal and _is_ours(scope["path"])):
            await _refuse(scope, send)
        elif scope["path"] == "/health" and self._draining:
            await inner.answer_json(send, 404, {"error": "draining"})
        else:
            await self._pass(_without_secrets(scope, internal), receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the request until its stream has ended or its client has gone."""
        if scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        self._inflight += 1
        try:
            await (self._awake if scope[INTERNAL] else self._metered)(scope, receive, send)
        finally:
            self._inflight -= 1
            self._used_at = time.monotonic()

    async def _awake(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stats.nap is not None and scope.get("method") != "GET":  # what is only read needs no weights
            await self._stats.nap.end()
        await self._app(scope, receive, send)

    async def _control(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope.get("method"), scope["path"])
        if route == ("GET", "/_moorage/stats"):
            await inner.answer_json(send, 200, self._report())
        elif route == ("POST", "/_moorage/drain"):
            self._draining = True
            await inner.answer_json(send, 200, self._report())
        elif route == ("POST", "/_moorage/settle"):
            self._meter.settle()
            await inner.answer_json(send, 200, self._report())
        elif route == ("POST", "/_moorage/sleep"):
            await self._sleep(send)
        elif route == ("POST", "/_moorage/adapters"):
            told = json.loads(await inner.read_body(receive))
            adapter_names.CURRENT.tell(told["adapters"], told["retired"])
            await inner.answer_json(send, 200, self._report())
        elif scope["type"] == "websocket":
            await _refuse(scope, send)
        elif scope["path"] == prompt_log.ROUTE:
            await self._prompts.control(scope, receive, send)
        else:
            await inner.answer_json(send, 404, {"error": "no such control route"})

    async def _sleep(self, send: Send) -> None:
        """Once nothing is in flight. The answer comes when the engine sleeps."""
        if self._stats.nap is None:
            await inner.answer_json(send, 404, {"error": "this engine has no sleep mode"})
            return
        try:
            await self._stats.nap.begin(lambda: self._inflight > 0)
        except nap.Busy:
            await inner.answer_json(send, 409, {"error": "requests are in flight"})
        else:
            await inner.answer_json(send, 200, self._report())

    def _report(self) -> dict[str, object]:
        stats = self._stats
        unfinished = stats.unfinished() if stats.connected else self._inflight
        waiting = min(stats.waiting(), unfinished)
        return {
            "inflight": self._inflight,
            "running": unfinished - waiting,
            "waiting": waiting,
            "steps_at": stats.stepped_at,
            "draining": self._draining,
            "connected": stats.connected,
            "tasks": list(stats.tasks),
            "max_concurrency": stats.max_concurrency,
            "idle_s": 0.0 if self._inflight else time.monotonic() - self._used_at,
            "asleep": stats.nap is not None and stats.nap.asleep,
            "woke_in_s": stats.nap.woke_in_s if stats.nap is not None else 0.0,
        }


def _translated(app: ASGIApp, stats: engine_stats.EngineStats) -> ASGIApp:
    """The engine with every dialect that it does not speak itself."""
    worded = engine_words.EngineWords(adapter_names.Refusals(app), stats)
    return responses.Dialect(sambastudio.Dialect(huggingface.Dialect(worded, stats=stats)))


def _matches(headers: Iterable[tuple[bytes, bytes]], name: bytes, expected: bytes) -> bool:
    values = [value for key, value in headers if key == name]
    return len(values) == 1 and hmac.compare_digest(values[0], expected)


def _without_secrets(scope: Scope, internal: bool) -> Scope:
    """The engine sees neither header: engines log headers, and hand them to code of the model."""
    headers = [header for header in scope["headers"] if header[0] not in (SECRET_HEADER, CONTROL_HEADER)]
    return {**scope, "headers": headers, INTERNAL: internal}


def _is_ours(path: str) -> bool:
    """Routes that are the supervisor's alone: the guard's, and those by which engines load adapters (vLLM has them twice)."""
    return path.startswith((CONTROL_PREFIX, "/adapters")) or path in adapter_names.MANAGING


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before accept: the server answers 403
    else:
        await inner.answer_json(send, 403, {"error": "this server answers only the edge"})
