"""ASGI middleware: one line of the server's output per request of the edge, with its id, so that the id finds the replica's part.

Lines have the level DEBUG and are written together, a few times a second: a system call per request would cost more than the line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments import server_log

PERIOD_S = 0.25


def to_stderr(text: str) -> None:
    """The server's output, which its replica reads."""
    sys.stderr.write(text)
    sys.stderr.flush()


class RequestLines:
    """Wraps `app`."""

    def __init__(self, app: ASGIApp, write: Callable[[str], None] = to_stderr, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._write = write
        self._clock = clock
        self._lines: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry. Only requests with an id of the edge get a line: the supervisor's own have none."""
        identity = _identity(scope)
        if identity is None:
            await self._app(scope, receive, send)
            return
        began = self._clock()
        status, whole, broken = 0, False, True

        async def noted(message: Message) -> None:
            nonlocal status, whole
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                whole = True

        try:
            await self._app(scope, receive, noted)
            broken = False
        except asyncio.CancelledError:
            broken = False
            raise
        finally:
            took = self._clock() - began
            outcome = "failed" if broken else "finished" if whole else "client left"
            self._add(f"{server_log.REQUEST}{identity} {scope['method']} {scope['path']} {status} {outcome} in {took:.3f} s\n")

    def _add(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(PERIOD_S, self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        self._write("".join(lines))


def _identity(scope: Scope) -> str | None:
    if scope["type"] != "http":
        return None
    found: bytes | None = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
    return found.decode("latin-1") if found else None
