"""An engine that does nothing but answer: one process, so little work per request that what is in front of it shows.

`python -m benchmarks.null_engine PORT [PORTS]` listens on PORT and the ports after it. A POST whose body has
`"stream":true` is answered with `max_tokens` server-sent events, `X-Pace-Ms` milliseconds apart (0 = as fast as the socket
takes them), each written on its own and stamped with the machine's monotonic clock in nanoseconds; others with one JSON
object, after `X-Pace-Ms`. Everything else is 200.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

from benchmarks.load import raise_file_limit

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PACE = re.compile(rb"\r\nx-pace-ms: *([\d.]+)", re.IGNORECASE)
TOKENS = re.compile(rb'"max_tokens": *(\d+)')
STREAM = re.compile(rb'"stream": *true')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: "
MODELS = json.dumps({"object": "list", "data": [{"id": "null", "object": "model", "created": 0, "owned_by": "nobody"}]}).encode()
ANSWER = json.dumps(
    {
        "id": "null",
        "object": "chat.completion",
        "created": 0,
        "model": "null",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def whole(body: bytes, kind: bytes = b"application/json") -> bytes:
    """A complete answer."""
    return b"%s%s\r\ncontent-length: %d\r\n\r\n%s" % (HEAD, kind, len(body), body)


def event(number: int) -> bytes:
    """One chunk with one event, as a chat completion's."""
    choice = {"index": 0, "delta": {"content": f"{time.monotonic_ns()} "}, "finish_reason": None}
    fields = {"id": "null", "object": "chat.completion.chunk", "created": number, "model": "null", "choices": [choice]}
    return chunk(b"data: " + json.dumps(fields).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client; requests come one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        """See asyncio.Protocol."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[: end + 2]
        found = LENGTH.search(head)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(self._data) < size:
            return
        body, self._data = self._data[end + 4 : size], self._data[size:]
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        pace = float(found[1]) / 1000 if (found := PACE.search(head)) else 0.0
        if STREAM.search(body):
            tokens = int(found[1]) if (found := TOKENS.search(body)) else 16
            self._transport.write(HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self._stream(0, tokens, pace, self._loop.time())
        elif pace:
            self._timer = self._loop.call_later(pace, self._transport.write, whole(ANSWER))
        elif head.startswith(b"GET /v1/models"):
            self._transport.write(whole(MODELS))
        else:
            self._transport.write(whole(ANSWER))

    def _stream(self, number: int, tokens: int, pace: float, due: float) -> None:
        if self._transport.is_closing():
            return
        if number == tokens:
            self._transport.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            return
        self._transport.write(event(number))
        due += pace
        self._timer = self._loop.call_at(due, self._stream, number + 1, tokens, pace, due)


async def main() -> None:
    """Serves until killed."""
    raise_file_limit()
    loop = asyncio.get_running_loop()
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    servers = [await loop.create_server(lambda: Connection(loop), "127.0.0.1", first + number, backlog=4096) for number in range(count)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(main())
