"""What HAProxy cannot decide: endpoints without a ready replica, bodies too large to route on, /v1/models, the console.

An ASGI application on a unix socket that only HAProxy speaks to; HAProxy has verified the key and says in X-Edge-* headers
who asks and for which endpoint, when it could tell.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hmac
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import InvalidHandshake

from cluster import errors, http_errors, routes, snapshot
from gateway import access, blocks, bodies, holding, members, relay

log = logging.getLogger(__name__)

CONSOLE = Path(__file__).parent / "console"
CONSOLE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
RETRY_S = 1.0
"""HAProxy finds a server up again at its own pace (a check a second) and tells nobody: a held request looks this often."""
Ask = Callable[[relay.Asked], AbstractAsyncContextManager[relay.Answer | relay.Socket | relay.Refusal]]
"""Lets a request in again."""
SCALE_UP_TIMEOUT = "x-scale-up-timeout"


def create_app(
    view: holding.View,
    holds: holding.Holding,
    inner: relay.Relay,
    secret: str,
    budget: bodies.Budget,
    body_limit: int,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """The whole application. `secret` is what HAProxy sends in X-Edge-Secret; `body_limit` is in bytes; `clock` tells Unix seconds."""
    models, held = Models(view), Held(view, holds, inner, budget, body_limit, clock)
    app = Starlette(
        routes=[
            Route("/v1/models", models.list),
            Route("/v1/models/{model:path}", models.get),
            Route("/console", _console),
            Mount("/console", ConsoleFiles(directory=CONSOLE, html=True, check_dir=False)),
            Mount("/", held),
        ],
        exception_handlers={
            errors.MoorageError: _moorage_error,
            HTTPException: _http_error,
            aiohttp.ClientError: _edge_away,
            Exception: _bug,
        },
    )
    return OnlyHaproxy(app, held, secret)


class OnlyHaproxy:
    """Lets nobody in who does not know HAProxy's secret. Only endpoints have websockets."""

    def __init__(self, app: ASGIApp, sockets: ASGIApp, secret: str) -> None:
        self._apps = {"http": app, "websocket": sockets}
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        app = self._apps.get(scope["type"])
        if app is None:
            return
        given = Headers(scope=scope).get("x-edge-secret", "").encode()
        await (app if hmac.compare_digest(given, self._secret) else Response(status_code=403))(scope, receive, send)


class ConsoleFiles(StaticFiles):
    """The console's pages: they run and load only what is theirs, and no other site may frame them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As whole files: their parts are nobody's need, and many ranges cost more than the file."""
        whole = [header for header in scope["headers"] if header[0] not in (b"range", b"if-range")]
        response = await super().get_response(path, {**scope, "headers": whole})
        response.headers.update(CONSOLE_HEADERS)
        return response


class Models:
    """`/v1/models`: what the key may call, endpoints at zero too."""

    def __init__(self, view: holding.View) -> None:
        self._view = view

    async def list(self, request: Request) -> Response:
        """GET /v1/models"""
        identity = _identity(request.headers)
        rows = access.callable_by(identity, self._view.now)
        return JSONResponse({"object": "list", "data": [one for row in rows for one in model_objects(access.called(identity, row), row)]})

    async def get(self, request: Request) -> Response:
        """GET /v1/models/{id}"""
        identity, model = _identity(request.headers), request.path_params["model"]
        row = access.find(identity, model, self._view.now)
        members.choose(row, model, shared=True)
        return JSONResponse(model_object(model, row))


class Held:
    """Requests for an endpoint: resolved, held until a replica can take them, relayed."""

    def __init__(
        self,
        view: holding.View,
        holds: holding.Holding,
        inner: relay.Relay,
        budget: bodies.Budget,
        body_limit: int,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._view = view
        self._holds = holds
        self._inner = inner
        self._budget = budget
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "websocket":
            await self._shake_hands(HTTPConnection(scope), receive, send)
            return
        body = bodies.Body(self._budget, self._body_limit)
        try:
            content = await body.read(receive)
            await _while_connected(receive, self._serve(Request(scope), content, receive, send))
        except bodies.ClientGone:
            log.debug("a client left")
        finally:
            body.close()

    async def _serve(self, request: Request, content: bytes, receive: Receive, send: Send) -> None:
        row = await self._endpoint(request, content)
        sub = _below(request)
        if request.method == "GET" and sub == "/v1/models":
            await _send(JSONResponse({"object": "list", "data": model_objects(row.name, row)}), request, send)
            return
        row = await self._member(row, request, request.method, content)
        seconds, wake = patience(request.method, sub, request.headers)
        asked = _asked(request, request.method, row, sub, content)
        await self._relay(row.path, asked, self._inner.open, seconds, wake, receive, send)

    async def _shake_hands(self, request: HTTPConnection, receive: Receive, send: Send) -> None:
        """A websocket, which is held like any request until it can be opened."""
        caller = Caller(receive)
        try:
            await receive()  # websocket.connect
            await caller.while_there(self._open(request, caller, send))
        except bodies.ClientGone:
            log.debug("a client left before its websocket was open")
        except errors.MoorageError as refusal:
            await error_response(refusal, request.scope["path"])(request.scope, receive, send)
        except (InvalidHandshake, OSError) as problem:
            _note_away(request, problem)
            await error_response(errors.Unavailable(retry_after=1), request.scope["path"])(request.scope, receive, send)

    async def _open(self, request: HTTPConnection, caller: Caller, send: Send) -> None:
        row = await self._member(await self._endpoint(request, b""), request, "GET", b"")
        sub = _below(request)
        seconds, wake = patience("GET", sub, request.headers)
        dial = functools.partial(self._inner.dial, protocols=request.scope.get("subprotocols", ()))
        await self._relay(row.path, _asked(request, "GET", row, sub, b""), dial, seconds, wake, caller.receive, send)

    async def _endpoint(self, request: HTTPConnection, content: bytes) -> snapshot.Endpoint:
        """The endpoint or the member's slot that HAProxy found, else the endpoint that the body names."""
        path = request.headers.get("x-edge-endpoint", "")
        if not path:
            model = await asyncio.to_thread(bodies.model_of, content, request.headers.get("content-type", ""))
            found = access.find(_identity(request.headers), model, self._view.now)
            blocks.check(self._view.now, found.path, self._clock())
            return found
        row = members.find(self._view.now, path)
        if row is None:
            raise errors.ModelNotFound
        return row

    @staticmethod
    async def _member(row: snapshot.Endpoint, request: HTTPConnection, method: str, content: bytes) -> snapshot.Endpoint:
        """The slot of the member that the request names, of an endpoint that has members; `row` itself of any other."""
        if not row.members:
            return row
        shared = not str(request.scope["path"]).startswith("/endpoints/")
        if method != "POST":
            return members.choose(row, request.query_params.get("model", ""), shared=shared)
        named = await asyncio.to_thread(bodies.members_named, content, request.headers.get("content-type", ""))
        return members.choose(row, *named, shared=shared)

    async def _relay(
        self, path: str, asked: relay.Asked, ask: Ask, seconds: float | None, wake: bool, receive: Receive, send: Send
    ) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        limit = self._holds.refuse(path).hold_timeout_s if seconds is None else seconds
        while True:
            left = max(0.0, start + limit - loop.time())
            async with self._holds.place(path, left, wake=wake), ask(asked) as answer:
                if not answer.retry:
                    await answer.pass_on(receive, send)
                    return
            if answer.retry == "full" and not asked.counted:
                asked = dataclasses.replace(asked, counted="minute")
            if left <= RETRY_S:
                raise self._holds.starting(self._holds.refuse(path))
            await self._view.change(RETRY_S)


class Caller:
    """The client of a websocket: whether it left can be asked while nothing is open, and what it says after that is not lost."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._first: asyncio.Task[Message] | None = None

    async def while_there(self, opening: Coroutine[Any, Any, None]) -> None:
        """Runs `opening`, which takes over with `receive`; until then a client that leaves ends it with ClientGone."""
        task, first = asyncio.ensure_future(opening), asyncio.ensure_future(self._next())
        self._first = first
        try:
            await asyncio.wait((task, first), return_when=asyncio.FIRST_COMPLETED)
            if self._first is not None and not task.done():
                raise bodies.ClientGone  # before it is accepted a client can say nothing else
            await task
        finally:
            task.cancel()
            first.cancel()
            await asyncio.gather(task, first, return_exceptions=True)

    async def receive(self) -> Message:
        """The client's next message."""
        first, self._first = self._first, None
        return await (first or self._receive())

    async def _next(self) -> Message:
        return await self._receive()


def _below(request: HTTPConnection) -> str:
    """The path below the endpoint's URL, or of a shared route."""
    path = str(request.scope["path"])
    return "/".join(["", *path.split("/")[4:]]) if path.startswith("/endpoints/") else path


def _asked(request: HTTPConnection, method: str, row: snapshot.Endpoint, sub: str, content: bytes) -> relay.Asked:
    return relay.Asked(
        method=method,
        path=f"/endpoints/{row.path}{sub}",
        query=request.scope["query_string"].decode("latin-1"),
        headers=request.headers,
        body=content,
        counted="all" if request.headers.get("x-edge-endpoint") else "",
    )


def patience(method: str, sub: str, headers: Mapping[str, str]) -> tuple[float | None, bool]:
    """How long a request waits for a replica (None = as long as its endpoint says) and whether it may wake the endpoint.

    Asking for health neither waits nor wakes: it would keep every endpoint up that somebody watches.
    Raises InvalidRequest for an X-Scale-Up-Timeout that is no number of seconds.
    """
    if method == "GET" and sub == "/health":
        return 0.0, False
    given = headers.get(SCALE_UP_TIMEOUT)
    if given is None:
        return None, True
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise errors.InvalidRequest("X-Scale-Up-Timeout must be a number of seconds, 0 or more.", param="X-Scale-Up-Timeout")
    return seconds, True


def model_objects(name: str, row: snapshot.Endpoint) -> list[dict[str, Any]]:
    """The entries of an endpoint in /v1/models: its own, and one for each member and adapter."""
    names = [*members.listed(row, name), *(f"{name}:{adapter}" for adapter in row.adapters)]
    return [model_object(one, row) for one in names]


def model_object(name: str, row: snapshot.Endpoint) -> dict[str, Any]:
    """One entry of /v1/models in OpenAI's shape, with the endpoint's state beside it; that of an adapter names its `parent`."""
    parent, colon, _ = name.partition(":")
    found = {"id": name, "object": "model", "created": row.created, "owned_by": row.namespace, "state": row.state}
    return found | {"parent": parent} if colon else found


def error_response(error: errors.MoorageError, path: str) -> JSONResponse:
    """`error` in the dialect of `path`."""
    return JSONResponse(
        http_errors.BODY_OF_DIALECT[routes.dialect_of(path)](error), http_errors.status_of(error), http_errors.headers(error)
    )


async def _while_connected(receive: Receive, work: Awaitable[None]) -> None:
    """Runs `work`, and cancels it when the client goes away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise bodies.ClientGone
        await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(response: Response, request: Request, send: Send) -> None:
    await response(request.scope, request.receive, send)


def _identity(headers: Headers) -> access.Identity | None:
    return access.Identity.parse(headers.get("x-edge-key", ""))


async def _moorage_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.MoorageError):
        raise error
    response = error_response(error, request.scope["path"])
    # Of a body that was not read to its end HAProxy waits for the rest as long as this connection is open.
    response.headers["Connection"] = "close"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    known = error.status_code if isinstance(error, HTTPException) else 500
    refusal = errors.NotFound() if known == 404 else errors.InvalidRequest("This method is not allowed here.")
    return error_response(refusal, request.scope["path"])


async def _edge_away(request: Request, error: Exception) -> Response:
    _note_away(request, error)
    return error_response(errors.Unavailable(retry_after=1), request.scope["path"])


def _note_away(request: HTTPConnection, error: Exception) -> None:
    log.warning("request %s could not re-enter the edge: %s", request.headers.get("x-edge-request-id", "?"), type(error).__name__)


async def _bug(request: Request, _: Exception) -> Response:
    # Starlette raises the exception again after this answer, so the server logs it.
    return error_response(errors.MoorageError(), request.scope["path"])


async def _console(_: Request) -> Response:
    return RedirectResponse("/console/")
