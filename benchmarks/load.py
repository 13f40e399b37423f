"""The load generator: `python -m benchmarks.load` reads one JSON request on standard input and prints one JSON result.

So many connections, each with one request at a time: as fast as the answers come (a closed loop: for capacity and the latency
of a single client), or, with "rate", so many a second in all (for CPU time per unit, which depends on how busy everybody is).

Request: {"host", "port", "connections", "seconds", "rate", "raw": the request's bytes as text, "stamped": false for the events
of a real engine, "addresses": how many source addresses}. Result: {"requests", "events", "errors", "first_error", "seconds",
"latency", "first", "gaps", "delay"}; the last four are distributions in seconds: {"count", "p50", "p90", "p99", "max", "bunched":
share below 0.1 ms}. With "hold", connections stay open with their first request; the answer then tells how many were "busy" to
the end.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import re
import resource
import sys
import time
from typing import Any, cast

import uvloop

STAMP = re.compile(rb'"content": *"(\d{12,}) ')
EVENT = re.compile(rb"data: \{()")
"""What counts as an event: one with the null engine's stamp, or any."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
BUNCHED_S = 1e-4
TICK_S = 5e-4


@dataclasses.dataclass
class Tally:
    """What was seen."""

    requests: int = 0
    events: int = 0
    errors: int = 0
    first_error: str = ""
    opened: int = 0
    latency: list[float] = dataclasses.field(default_factory=list)
    first: list[float] = dataclasses.field(default_factory=list)
    gaps: list[float] = dataclasses.field(default_factory=list)
    delay: list[float] = dataclasses.field(default_factory=list)

    def error(self, text: str) -> None:
        """A request failed."""
        self.errors += 1
        self.first_error = self.first_error or text[:300]

    def result(self, seconds: float) -> dict[str, Any]:
        """For the caller."""
        fields = dataclasses.asdict(self)
        return {name: distribution(value) if isinstance(value, list) else value for name, value in fields.items()} | {"seconds": seconds}


def distribution(values: list[float]) -> dict[str, float]:
    """What matters of some durations."""
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        return {"count": 0}
    found = {name: ordered[min(count - 1, int(share * count))] for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {"count": count, **found, "max": ordered[-1], "bunched": sum(value < BUNCHED_S for value in ordered) / count}


class Client(asyncio.Protocol):
    """One connection: sends the request again as soon as the answer is whole, until told to stop."""

    def __init__(
        self, request: bytes, event: re.Pattern[bytes], tally: Tally, again: bool = True, idle: collections.deque[Client] | None = None
    ) -> None:
        self._request = request
        self._event = event
        self._tally = tally
        self._again = again
        self._idle = idle
        self._head = True
        self._left = 0
        self._data = b""
        self._sent = 0.0
        self._last = 0.0
        self._events = 0
        self.busy = False
        self.stopped = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        if self._idle is None:
            self.send()
        else:
            self._idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface
        """See asyncio.Protocol."""
        if self.busy and not self.stopped:
            self._tally.error("the connection was closed")
        if not self.closed.done():
            self.closed.set_result(None)

    def stop(self) -> None:
        """No more requests; what runs is dropped."""
        self.stopped = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        now = time.monotonic()
        if self._head:
            data = self._data + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._data = data
                return
            self._data = b""
            if not data.startswith(b"HTTP/1.1 200"):
                self._tally.error(data[:300].decode(errors="replace"))
                self.busy = False
                self._transport.abort()
                return
            found = LENGTH.search(data[: end + 2])
            self._head = False
            self._left = int(found[1]) if found else -1
            data = data[end + 4 :]
            self._last = now
        if self._left >= 0:
            self._left -= len(data)
            if self._left <= 0:
                self._done(now)
        elif data:
            self._events_in(data, now)

    def _events_in(self, data: bytes, now: float) -> None:
        stamps = self._event.findall(data)
        for stamp in stamps:
            if stamp:
                self._tally.delay.append(now - int(stamp) / 1e9)
            if self._events == 0:
                self._tally.first.append(now - self._sent)
                self._tally.opened += 1
            else:
                self._tally.gaps.append(now - self._last)
            self._last = now
            self._events += 1
        self._tally.events += len(stamps)
        tail = (self._data + data)[-7:]
        self._data = tail
        if tail.endswith(b"0\r\n\r\n"):
            self._data = b""
            self._done(now)

    def _done(self, now: float) -> None:
        self._tally.requests += 1
        self._tally.latency.append(now - self._sent)
        self.busy = False
        if self._idle is not None:
            self._idle.append(self)
        elif self._again and not self.stopped:
            self.send()

    def send(self) -> None:
        """The request."""
        self._head = True
        self._events = 0
        self.busy = True
        self._sent = time.monotonic()
        self._transport.write(self._request)


async def run(asked: dict[str, Any]) -> dict[str, Any]:
    """One measurement."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    request = asked["raw"].encode()
    clients: list[Client] = []
    idle: collections.deque[Client] | None = collections.deque() if asked.get("rate") else None
    for number in range(asked["connections"]):
        source = (f"127.0.0.{2 + number % asked['addresses']}", 0) if asked.get("addresses") else None
        try:
            _, client = await loop.create_connection(
                lambda: Client(request, STAMP if asked.get("stamped", True) else EVENT, tally, not asked.get("hold"), idle),
                asked["host"],
                asked["port"],
                local_addr=source,
            )
        except OSError as exc:
            tally.error(repr(exc))
            continue
        clients.append(client)
    if asked.get("hold"):
        sys.stdout.write("open\n")
        sys.stdout.flush()
    began = time.monotonic()
    if idle is None:
        await asyncio.sleep(asked["seconds"])
    else:
        await pace(idle, asked["rate"], asked["seconds"])
    seconds = time.monotonic() - began
    result = tally.result(seconds)
    result["busy"] = sum(client.busy for client in clients)
    for client in clients:
        client.stop()
    await asyncio.gather(*(client.closed for client in clients))
    return result


def raise_file_limit() -> None:
    """As many connections as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def pace(idle: collections.deque[Client], rate: float, seconds: float) -> None:
    """Sends `rate` requests a second on connections that have nothing to do; what finds none is not sent."""
    began, sent = time.monotonic(), 0
    while (gone := time.monotonic() - began) < seconds:
        due = int(gone * rate)
        for _ in range(min(due - sent, len(idle))):
            idle.popleft().send()
        sent = due
        await asyncio.sleep(TICK_S)


def main() -> None:
    """Standard input to standard output."""
    raise_file_limit()
    result = uvloop.run(run(json.loads(sys.stdin.readline())))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
