"""ASGI middleware: a large body that dawdles ends its request with 408, so that nobody holds an engine's place with a trickle.

Small bodies have arrived whole when the edge passes a request on; they are not looked at.
"""

from __future__ import annotations

import asyncio
import json

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import errors, http_errors, pace

WHOLE = 24_576
"""Bytes; the edge reads bodies up to this size before it passes a request on."""


class SlowBodies:
    """Wraps `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http" or not _is_large(scope):
            await self._app(scope, receive, send)
            return
        timed = _Timed(receive, send)
        try:
            await self._app(scope, timed.receive, timed.send)
        except ClientDisconnect:
            if not timed.late:
                raise
        if timed.late and not timed.started:
            await _refuse(send)


class _Timed:
    """The two channels of one request; to the application a client that is too late is one that has left."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._began = asyncio.get_running_loop().time()
        self._received = 0
        self._complete = False
        self.late = False
        self.started = False

    async def receive(self) -> Message:
        """The ASGI receive."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._began + pace.seconds(self._received)):
                message = await self._receive()
        except TimeoutError:
            self.late = self._complete = True
            return {"type": "http.disconnect"}
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """The ASGI send."""
        if self.late and not self.started:
            return  # an answer to half a body
        self.started = True
        await self._send(message)


def _is_large(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) > WHOLE if value.isdigit() else True
        if name == b"transfer-encoding":
            return True
    return False


async def _refuse(send: Send) -> None:
    error = errors.BodyTimeout()
    content = json.dumps(http_errors.openai_body(error)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": http_errors.status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": content})
