"""ASGI middleware: opens an account for each request that uses the engine, sees how its answer ends, and closes it.

It looks at the kinds of messages, never into them; a stream costs one call more per message. What is counted is the engine's business.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments import usage, usage_open, usage_spool

READING = frozenset({"GET", "HEAD", "OPTIONS"})
SWITCHED, REFUSED = 101, 403
"""Statuses of a WebSocket that was taken, and of one that was not."""
GOOD_BYES = frozenset({1000, 1001, 1005})
"""Codes with which a WebSocket ends as it should."""
FOLDER = "MOORAGE_USAGE"
"""Variable in which the supervisor names the folder of this server's spool."""


def meter() -> usage.Meter:
    """The one of this server process. One that no supervisor started, or whose spool cannot be used, serves and counts for nobody."""
    folder = os.environ.get(FOLDER, "")
    if folder:
        try:
            return usage.Meter(usage_spool.Writer(Path(folder)), table=_table(Path(folder)))
        except OSError as exc:
            sys.stderr.write(f"ERROR moorage: usage is not recorded: {exc}\n")
    return usage.Meter(usage_spool.Nowhere())


def _table(folder: Path) -> usage_open.Table | None:
    try:
        return usage_open.Table(folder)
    except OSError as exc:
        sys.stderr.write(f"WARNING moorage: what runs when this server is killed will leave no usage record: {exc}\n")
        return None


class Metered:
    """Wraps `app`. Requests that only read (GET) use no engine, but for those to programs of users (`reads`)."""

    def __init__(self, app: ASGIApp, meter: usage.Meter, *, reads: bool = False) -> None:
        self._app = app
        self._meter = meter
        self._reads = reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] == "http" and scope["method"] in READING and not self._reads:
            await self._app(scope, receive, send)
            return
        account = self._meter.open(scope["path"], scope["headers"])
        watch = (_Http if scope["type"] == "http" else _WebSocket)(account, receive, send)
        token = usage.ACCOUNT.set(account)
        raised = True
        try:
            await self._app(scope, watch.receive, watch.send)
            raised = False
        except asyncio.CancelledError:
            raised = False
            account.left = account.left or not account.whole
            raise
        finally:
            if raised:
                account.broken = not account.left  # reading the body of a client that has left raises too
            usage.ACCOUNT.reset(token)
            watch.end()


class _Http:
    """The two channels of one request. Its hold on the account ends with the last message of the answer, before that is out."""

    def __init__(self, account: usage.Account, receive: Receive, send: Send) -> None:
        self._account = account
        self._receive = receive
        self._send = send
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._account.whole:
            self._account.left = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._account.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._account.whole = True
            self.end()
        await self._send(message)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._account.release()


class _WebSocket(_Http):
    """The same for a WebSocket, which is whole when either side closes it as it should."""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            good = message.get("code", 1005) in GOOD_BYES
            self._account.whole, self._account.left = self._account.whole or good, self._account.left or not good
        return message

    async def send(self, message: Message) -> None:
        account = self._account
        if message["type"] == "websocket.accept":
            account.status = SWITCHED
        elif message["type"] == "websocket.http.response.start":
            account.status, account.whole = message["status"], True
        elif message["type"] == "websocket.close":
            account.status = account.status or REFUSED
            account.whole = True
            account.broken = account.broken or message.get("code", 1000) not in GOOD_BYES
        await self._send(message)
