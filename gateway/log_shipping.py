"""Hands the access log on to the manager in chunks of whole lines, which become the request log (`cluster/request_log.py`).

Reads the files that `gateway.access_log` writes, a few times a second, and never looks into a line. Nothing is remembered
here: the manager says how far it has come with each file. What the manager missed while it was away is what the files still
hold; older lines are lost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from cluster import messages
from gateway.access_log import KEPT_FILES
from gateway.control import ControlLost

log = logging.getLogger(__name__)

PERIOD_S = 0.3
"""Between two chunks: they are few, whatever the number of requests."""
PAUSES = (1.0, 2.0, 5.0, 10.0)
"""After a failure, and after more of them in a row."""
CHUNK = 4 * 2**20
HEAD = 4096
"""A line is shorter."""

Send = Callable[[messages.RequestLines], Awaitable[int]]


@dataclasses.dataclass(frozen=True)
class Segment:
    """One file of the log. Its name is made from its first line, which has a request's unique id: it stays when the file is renamed."""

    name: str
    path: Path
    size: int


class LogShipper:
    """`run` until cancelled."""

    def __init__(self, file: Path, gateway: str, send: Send, period_s: float = PERIOD_S, chunk: int = CHUNK) -> None:
        """`file` is the newest one of the log; `send` returns how much of a segment has arrived. It may raise ControlLost."""
        self._file = file
        self._gateway = gateway
        self._send = send
        self._period_s = period_s
        self._chunk = chunk
        self._received: dict[str, int] = {}

    async def run(self) -> None:
        """For ever."""
        failures = 0
        while True:
            try:
                await self.step()
                failures = 0
            except (ControlLost, OSError) as problem:  # not now: the files keep the lines
                log.debug("request lines were not taken: %s", problem)
                failures += 1
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES)) - 1] if failures else self._period_s)

    async def step(self) -> bool:
        """Sends the next chunk, or asks how far the manager is with a file; False when it has all. Raises what `send` raises."""
        lines = await asyncio.to_thread(self._next)
        if lines is None:
            return False
        self._received[lines.segment] = await self._send(lines)
        return True

    def _next(self) -> messages.RequestLines | None:
        segments = self.segments()
        self._received = {one.name: self._received[one.name] for one in segments if one.name in self._received}
        for segment in segments:
            received = self._received.get(segment.name)
            if received is None:
                return messages.RequestLines(self._gateway, segment.name, 0)
            if received < segment.size and (lines := self._read(segment, received)) is not None:
                return lines
        return None

    def _read(self, segment: Segment, first: int) -> messages.RequestLines | None:
        """Whole lines from `first` on; None when there is none, or the file has just become another one."""
        try:
            with segment.path.open("rb") as file:
                if _name(file.read(HEAD)) != segment.name:
                    return None
                file.seek(first)
                data = file.read(self._chunk)
        except FileNotFoundError:
            return None
        end = data.rfind(b"\n") + 1
        return messages.RequestLines(self._gateway, segment.name, first, data[:end]) if end else None

    def segments(self) -> list[Segment]:
        """The files that have lines, oldest first."""
        found = []
        for number in range(KEPT_FILES, -1, -1):
            path = self._file.with_name(f"{self._file.name}.{number}") if number else self._file
            try:
                with path.open("rb") as file:
                    head, size = file.read(HEAD), file.seek(0, 2)
            except FileNotFoundError:
                continue
            if (name := _name(head)) is not None:
                found.append(Segment(name, path, size))
        return found


def _name(head: bytes) -> str | None:
    line, end, _ = head.partition(b"\n")
    return hashlib.sha256(line).hexdigest()[:32] if end else None
