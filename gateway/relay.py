"""Hands a request back to HAProxy by its inner door, and streams the answer to the client as it comes.

The endpoint is in the path now and the verified identity in headers, so that access, limits, queueing and retries exist
once: in HAProxy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yarl
from starlette.datastructures import Headers
from starlette.types import Send

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
    async def open(self, asked: Asked) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head; its body is read by `stream`. Raises aiohttp.ClientError."""
        if self._session is None:
            raise RuntimeError("the relay is not started")
        target = yarl.URL(f"http://edge{asked.path}{'?' + asked.query if asked.query else ''}", encoded=True)
        async with self._session.request(
            asked.method,
            target,
            headers=self._headers(asked),
            data=io.BytesIO(asked.body) if asked.body else None,
            allow_redirects=False,
        ) as answer:
            yield answer

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


def retry_reason(answer: aiohttp.ClientResponse) -> str:
    """Why HAProxy wants the request held (`cold`: no server is up, `full`: the endpoint has all it may have), or ''."""
    return answer.headers.get("x-edge-retry", "") if answer.status == 503 else ""


async def stream(answer: aiohttp.ClientResponse, send: Send) -> None:
    """Passes the answer on, byte for byte.

    When the engine's side breaks, it returns without the last message: the server then cuts the connection, so that a
    broken stream never looks like a finished one.
    """
    headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in ANSWER_HOP_BY_HOP]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (aiohttp.ClientError, asyncio.IncompleteReadError, ConnectionError):
        log.info("an answer broke off while it was relayed")
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})
