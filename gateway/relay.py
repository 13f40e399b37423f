"""Hands a request back to HAProxy by its inner door, and streams the answer to the client as it comes.

The endpoint is in the path now and the verified identity in headers, so that access, limits, queueing and retries exist
once: in HAProxy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yarl
from starlette.datastructures import Headers
from starlette.types import Receive, Send
from websockets.asyncio.client import ClientConnection

from cluster import sockets

log = logging.getLogger(__name__)

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "content-length"}
)
ANSWER_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
HEADER_BYTES = 65536


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request as it re-enters: `path` is the endpoint's public path, `query` raw."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = dataclasses.field(repr=False)
    counted: str = ""
    """What of the endpoint's own limits has this request in it already: '' nothing, `minute` its minute, `all` that and what runs now."""


class Relay:
    """A client of the inner door. `secret` proves to HAProxy that the headers about identity are ours."""

    def __init__(self, inner: Path, secret: str) -> None:
        self._inner = inner
        self._secret = secret
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Must run in the loop that relays."""
        self._session = aiohttp.ClientSession(
            # A new connection each time: a kept one may be closing at a reload just when it is used.
            connector=aiohttp.UnixConnector(str(self._inner), limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )

    async def stop(self) -> None:
        """Answers under way break off."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def open(self, asked: Asked) -> AsyncIterator[Answer]:
        """The answer, of which the head has come. Raises aiohttp.ClientError."""
        if self._session is None:
            raise RuntimeError("the relay is not started")
        async with self._session.request(
            asked.method,
            yarl.URL(_url("http", asked), encoded=True),
            headers=self._headers(asked),
            data=io.BytesIO(asked.body) if asked.body else None,
            allow_redirects=False,
        ) as answer:
            yield Answer(answer)

    @asynccontextmanager
    async def dial(self, asked: Asked, protocols: Sequence[str]) -> AsyncIterator[Socket | Refusal]:
        """The websocket that `asked` shakes hands for, or what was answered instead. Raises OSError, websockets' InvalidHandshake."""
        try:
            headers = [(name, value) for name, value in self._headers(asked) if sockets.of_request(name)]
            async with sockets.dial(_url("ws", asked), headers, protocols, path=self._inner) as connection:
                yield Socket(connection)
        except sockets.Refused as refused:
            yield Refusal(refused)

    def _headers(self, asked: Asked) -> list[tuple[str, str]]:
        given = asked.headers
        kept = [(name, value) for name, value in given.items() if name not in HOP_BY_HOP and not name.startswith("x-edge-")]
        about: Mapping[str, str] = {
            "x-edge-secret": self._secret,
            "x-edge-request-id": given.get("x-edge-request-id", ""),
            "x-edge-source": given.get("x-edge-source", ""),
            "x-edge-digest": given.get("x-edge-digest", ""),
            "x-edge-counted": asked.counted,
        }
        return kept + [(name, value) for name, value in about.items() if value]


class Answer:
    """An answer whose head has come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.retry = _retry_reason(answer.status, answer.headers)
        """Why HAProxy wants the request held (`cold`: no server is up, `full`: the endpoint has all it may have), or ''."""

    async def pass_on(self, _: Receive, send: Send) -> None:
        """Passes the answer on, byte for byte.

        When the engine's side breaks, it returns without the last message: the server then cuts the connection, so that a
        broken stream never looks like a finished one.
        """
        headers = [(name.lower(), value) for name, value in self._answer.raw_headers if name.lower() not in ANSWER_HOP_BY_HOP]
        await send({"type": "http.response.start", "status": self._answer.status, "headers": headers})
        try:
            async for chunk in self._answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, asyncio.IncompleteReadError, ConnectionError):
            log.info("an answer broke off while it was relayed")
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Refusal:
    """What was answered to a handshake instead of a websocket."""

    def __init__(self, refused: sockets.Refused) -> None:
        self._refused = refused
        self.retry = _retry_reason(refused.response.status_code, refused.response.headers)

    async def pass_on(self, _: Receive, send: Send) -> None:
        """To the client, whose websocket is not accepted."""
        await self._refused.tell(send)


class Socket:
    """An open websocket."""

    retry = ""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def pass_on(self, receive: Receive, send: Send) -> None:
        """Accepts the client's websocket, and goes on until either side ends."""
        await sockets.join(self._connection, receive, send)


def _url(scheme: str, asked: Asked) -> str:
    return f"{scheme}://edge{asked.path}{'?' + asked.query if asked.query else ''}"


def _retry_reason(status: int, headers: Mapping[str, str]) -> str:
    return headers.get("x-edge-retry", "") if status == 503 else ""
