"""ASGI application that hands everything to another HTTP server on this machine, byte for byte, in both directions.

An answer that breaks off there ends without its last message, so that our server cuts the connection: a broken stream never
looks like a finished one. Who may ask is the guard's business, which is wrapped round this.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

import aiohttp
import yarl
from starlette.types import Receive, Scope, Send
from websockets import exceptions

from cluster import errors, http_errors, sockets
from deployments import engine_stats, told_usage
from deployments.dialects import inner

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"})
HEADER_BYTES = 1 << 18
HEALTH_TIMEOUT_S = 1.5
"""Shorter than the edge waits for the answer to its health check."""
CONNECT_TIMEOUT_S = 5.0


class ReverseProxy:
    """Stands before the server at 127.0.0.1:`port`. GET /health asks for its `health_route`."""

    def __init__(self, port: int, health_route: str, max_concurrency: int, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        """`max_concurrency` is told to the edge, which sends no more at once."""
        self._origin = f"127.0.0.1:{port}"
        self._health_route = health_route
        self._stats = stats
        self._running = 0
        self._session: aiohttp.ClientSession | None = None
        stats.connected = True
        stats.unfinished = lambda: self._running
        stats.max_concurrency = max_concurrency

    async def close(self) -> None:
        """Answers under way break off."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry. A request to the other server ends when its client leaves."""
        if scope["type"] == "http" and scope["path"] == "/health":
            await self._health(send)
            return
        if scope["type"] not in ("http", "websocket"):
            return
        self._running += 1
        try:
            if scope["type"] == "http":
                body = _Body(receive, empty=not _has_body(scope["headers"]))
                await sockets.until_either(self._relay(scope, body, send), body.client_left())
            else:
                await self._websocket(scope, receive, send)
        finally:
            self._running -= 1
            self._moved()

    async def _health(self, send: Send) -> None:
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        healthy = False
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._client().get(f"http://{self._origin}{self._health_route}", timeout=timeout, allow_redirects=False) as answer:
                healthy = 200 <= answer.status < 300
        if healthy:
            self._moved()
        await inner.answer_json(send, 200 if healthy else 503, {"status": "ok" if healthy else "not ready"})

    async def _relay(self, scope: Scope, body: _Body, send: Send) -> None:
        """Not followed: redirects, which are the client's business."""
        asking = self._client().request(
            scope["method"],
            self._url("http", scope),
            headers=_request_headers(scope),
            data=None if body.empty else body.chunks(),
            allow_redirects=False,
        )
        try:
            answer = await asking
        except (aiohttp.ClientError, OSError) as exc:
            if not body.left:
                await _refuse(send, exc)
            return
        async with answer:
            await self._pass_on(answer, send)

    async def _pass_on(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        told = told_usage.Told(headers)
        try:
            async for chunk in answer.content.iter_any():
                self._moved()
                told.add(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, OSError):
            return  # without the last message: see above
        told.count()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        try:
            async with sockets.dial(str(self._url("ws", scope)), _headers(scope["headers"]), scope.get("subprotocols", ())) as upstream:
                await sockets.join(upstream, receive, send, self._moved)
        except sockets.Refused as refused:
            await refused.tell(send)
        except (exceptions.InvalidHandshake, OSError) as exc:
            await _refuse(sockets.instead(send), exc)

    def _url(self, scheme: str, scope: Scope) -> yarl.URL:
        query = scope["query_string"].decode("latin-1")
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        return yarl.URL(f"{scheme}://{self._origin}{path}{'?' + query if query else ''}", encoded=True)

    def _moved(self) -> None:
        self._stats.stepped_at = time.monotonic()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A new connection each time: the other server may be closing a kept one just when it is used.
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                max_line_size=HEADER_BYTES,
                max_field_size=HEADER_BYTES,
            )
        return self._session


class _Body:
    """A request's body as it comes, and whether its client left."""

    def __init__(self, receive: Receive, *, empty: bool) -> None:
        self._receive = receive
        self._read = asyncio.Event()
        self.empty = empty
        self.left = False
        if empty:
            self._read.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The parts. One that ends early raises ConnectionResetError, so that the other server sees a broken request."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                self._read.set()
                raise ConnectionResetError("the client left")
            yield message.get("body", b"")
            if not message.get("more_body", False):
                self._read.set()
                return

    async def client_left(self) -> None:
        """Returns when the client has left. Looks only at what comes after the body."""
        await self._read.wait()
        while not self.left:
            self.left = (await self._receive())["type"] == "http.disconnect"


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _request_headers(scope: Scope) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
    endpoint = next((value for name, value in kept if name == b"x-moorage-endpoint"), b"")
    if endpoint:  # the path that the edge took away
        kept.append((b"x-forwarded-prefix", b"/endpoints/" + endpoint))
    return _headers(kept)


def _headers(found: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in found]


async def _refuse(send: Send, cause: Exception) -> None:
    reached = not isinstance(cause, aiohttp.ClientConnectorError | ConnectionRefusedError)
    words = "The endpoint's server broke off before it answered." if reached else "The endpoint's server cannot be reached."
    await inner.answer_json(send, 502, http_errors.openai_body(errors.Unavailable(words)))
