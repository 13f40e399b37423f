"""Joins the websocket of a client, in ASGI's words, to one of another server: message by message, and each close as it was given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Send
from websockets import exceptions
from websockets.asyncio import client
from websockets.http11 import Response

OF_HANDSHAKE = frozenset(
    {"host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "content-length"}
)
"""Headers of one connection; what begins with sec-websocket- is as well."""
NO_CODE, LOST = 1005, 1006
"""Codes that no close frame holds: one without a code, and an end without a close."""
BROKEN = 1011
"""Told to a client whose server broke off."""


class Refused(Exception):
    """The server answered the handshake with something else than a websocket: `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the handshake was answered {response.status_code}")
        self.response = response

    async def tell(self, send: Send) -> None:
        """Passes the answer on to a client whose websocket is not accepted yet."""
        answer = instead(send)
        await answer({"type": "http.response.start", "status": self.response.status_code, "headers": _kept(self.response)})
        await answer({"type": "http.response.body", "body": bytes(self.response.body)})


class _Connect(client.connect):
    def process_redirect(self, exc: Exception) -> Exception:
        """Not followed: where to is the client's business, and may be inside the network."""
        return exc


@contextlib.asynccontextmanager
async def dial(
    uri: str,
    headers: Iterable[tuple[str, str]],
    protocols: Sequence[str] = (),
    path: Path | None = None,
) -> AsyncIterator[client.ClientConnection]:
    """An open websocket to `uri`, by the unix socket at `path` if one is given.

    Neither the handshake nor a message has a limit here: the client's side has, and leaves when it likes.
    Raises Refused; OSError or websockets' InvalidHandshake when there is no answer.
    """
    where: dict[str, Any] = {"unix": True, "path": str(path)} if path is not None else {}
    connecting = _Connect(
        uri,
        additional_headers=[(name, value) for name, value in headers if of_request(name)],
        subprotocols=list(protocols) or None,  # type: ignore[arg-type]
        compression=None,
        user_agent_header=None,
        proxy=None,
        open_timeout=None,
        ping_interval=None,  # the server's own pings are answered
        max_size=None,
        **where,
    )
    try:
        connection = await connecting
    except exceptions.InvalidStatus as exc:
        raise Refused(exc.response) from None
    try:
        yield connection
    finally:
        # Without a word when nobody has said good-bye: what was cut must not look like what was closed.
        connection.transport.abort()


def instead(send: Send) -> Send:
    """Sends the messages of an HTTP answer in the place of a websocket that is not accepted."""

    async def answer(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return answer


def of_request(name: str) -> bool:
    """Whether a header of a handshake is the request's, not the connection's."""
    return name.lower() not in OF_HANDSHAKE and not name.lower().startswith("sec-websocket-")


async def join(upstream: client.ClientConnection, receive: Receive, send: Send, moved: Callable[[], object] = lambda: None) -> None:
    """Accepts the client's websocket and passes messages on until either side ends. `moved` is called with each of the server's."""
    headers = _kept(upstream.response) if upstream.response is not None else []
    await send({"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": headers})
    await until_either(_to_client(upstream, send, moved), _to_server(receive, upstream))


async def until_either(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Runs both until one of them ends, and cancels the other. What the one that ended raised is raised."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _to_client(upstream: client.ClientConnection, send: Send, moved: Callable[[], object]) -> None:
    try:
        while True:
            message = await upstream.recv()
            moved()
            await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})
    except exceptions.ConnectionClosed:
        with contextlib.suppress(OSError):  # it was the client that closed
            await send({"type": "websocket.close", "code": _sayable(upstream.close_code), "reason": upstream.close_reason or ""})
    except OSError:
        return  # the client is gone


async def _to_server(receive: Receive, upstream: client.ClientConnection) -> None:
    with contextlib.suppress(exceptions.ConnectionClosed):  # the other direction tells the client
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            await upstream.send(message["bytes"] if text is None else text)
        if said_goodbye(message):
            code = message.get("code", NO_CODE)
            await upstream.close(1000 if code == NO_CODE else code, message.get("reason") or "")
        return
    await upstream.wait_closed()


def said_goodbye(message: Message) -> bool:
    """Whether a disconnected client has closed its websocket before it left. uvicorn has no `reason` for one that is just gone."""
    return message.get("code", NO_CODE) != LOST and "reason" in message


def _sayable(code: int | None) -> int:
    if code == NO_CODE:
        return 1000
    return BROKEN if code is None or code in (LOST, 1015) else code


def _kept(response: Response) -> list[tuple[bytes, bytes]]:
    found = response.headers.raw_items()
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in found if of_request(name)]
