"""Calling the engine's own application in memory from a dialect: read a body, replay another one, answer JSON.

What the bodies mean is each dialect's business.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from cluster import errors, http_errors

BODY_LIMIT = 100 * 2**20
"""Bytes of a request body that a dialect reads; the edge's own limit is normally lower."""

DROPPED = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"accept-encoding"})


class ClientGone(Exception):
    """The client left before its request was complete."""


class BodyTooLarge(Exception):
    """The request body is over the limit."""


async def read_body(receive: Receive) -> bytes:
    """The whole request body. Raises ClientGone, BodyTooLarge."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT:
            raise BodyTooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """A receive channel that gives `body` once and then what the client does (that is: whether it leaves)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def request(scope: Scope, method: str, path: str, body: bytes, kind: bytes = b"application/json") -> Scope:
    """The client's scope turned into a request to the engine's own route `path`, with a body of the content type `kind`."""
    headers = [header for header in scope["headers"] if header[0] not in DROPPED]
    headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    return {**scope, "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}


class Answer:
    """A send channel that keeps the answer: `status`, `headers` and `body` are whole when the call has returned and `complete`."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        """The ASGI send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            self.complete = not message.get("more_body", False)

    @property
    def body(self) -> bytes:
        """All of the body so far."""
        return b"".join(self._parts)


class Events:
    """A send channel that reads the engine's server-sent events and sends what `translate` makes of each, as it comes.

    An answer that is no stream (an error) is kept whole in `error`, for the dialect to put into its own words.
    """

    content_type = b"text/event-stream; charset=utf-8"

    def __init__(self, send: Send) -> None:
        self.error: Answer | None = None
        self._send = send
        self._buffer = b""

    def translate(self, data: Any) -> bytes:
        """The bytes that one event's JSON is good for; none is right too."""
        raise NotImplementedError

    async def __call__(self, message: Message) -> None:
        """The ASGI send."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self.error is not None:
            await self.error(message)
        elif message["type"] == "http.response.body":
            await self._body(message)

    async def _start(self, message: Message) -> None:
        if message["status"] != 200:
            self.error = Answer()
            await self.error(message)
            return
        headers = [(b"content-type", self.content_type), (b"cache-control", b"no-cache")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _body(self, message: Message) -> None:
        *events, self._buffer = (self._buffer + message.get("body", b"")).replace(b"\r\n", b"\n").split(b"\n\n")
        ours = b"".join(self._event(event) for event in events)
        more = message.get("more_body", False)
        if ours or not more:
            await self._send({"type": "http.response.body", "body": ours, "more_body": more})

    def _event(self, event: bytes) -> bytes:
        data = b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        return b"" if not data or data == b"[DONE]" else self.translate(json.loads(data))


def openai_error(status: int, message: str) -> dict[str, Any]:
    """A refusal in OpenAI's shape."""
    return http_errors.openai_body({413: errors.TooLarge}.get(status, errors.InvalidRequest)(message))


async def answer_json(send: Send, status: int, body: Any, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Sends `body` as the whole JSON answer."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *(headers or [])]})
    await send({"type": "http.response.body", "body": content})
