"""A server's output: lines with their level, secrets struck out, the last of them kept, batches handed on in order.

Where the batches go (the manager) is the caller's business; lines that cannot be delivered in time are dropped and counted.
"""

from __future__ import annotations

import asyncio
import collections
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from cluster.messages import LogLine

Ship = Callable[[Sequence[LogLine]], Awaitable[None]]

TAIL_LINES = 400
PENDING_LINES = 5000
BATCH_LINES = 500
BATCH_PERIOD_S = 0.5
LINE_LIMIT = 8192
MIN_SECRET = 6
"""Shorter values are not struck out: they would blank half of every line."""

REQUEST = "DEBUG moorage: request "
"""Begins the line of a request: says nothing of the lines around it, and nothing about why a server ended."""
LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b")
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARN": "warning", "WARNING": "warning"}


class ServerLog:
    """Collects lines by `add`; `run` ships them until cancelled, `flush` ships what is left."""

    def __init__(self, ship: Ship, secrets: Iterable[str] = (), clock: Callable[[], float] = time.time) -> None:
        """`secrets` are values (passwords, tokens) that must not appear in any line."""
        self._ship = ship
        self._clock = clock
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._pending: collections.deque[LogLine] = collections.deque(maxlen=PENDING_LINES)
        self._dropped = 0
        self._level = "info"
        found = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None

    def add(self, raw: bytes) -> None:
        """Takes one line as the server wrote it."""
        text = self.redact(raw.decode(errors="replace").rstrip("\r\n")[:LINE_LIMIT])
        if not text.strip():
            return
        if text.startswith(REQUEST):
            self._queue("debug", text)
            return
        match = LEVEL.search(text[:100])
        if match:
            self._level = LEVELS.get(match.group(1), "error")
        elif not text.startswith((" ", "\t")):
            self._level = "error" if text.startswith("Traceback") else "info"  # continuation lines keep the level of their first
        self._tail.append(text)
        self._queue(self._level, text)

    def redact(self, text: str) -> str:
        """`text` with every secret struck out."""
        return self._secrets.sub("[secret]", text) if self._secrets else text

    def tail(self) -> list[str]:
        """The last lines, oldest first."""
        return list(self._tail)

    def _queue(self, level: str, text: str) -> None:
        self._dropped += len(self._pending) == PENDING_LINES
        self._pending.append(LogLine(self._clock(), level, text))

    async def run(self) -> None:
        """Ships batches for ever, half a second apart while there is something to ship."""
        while True:
            await asyncio.sleep(BATCH_PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """Ships what is there."""
        while self._pending:
            await self._ship(self._batch())

    def _batch(self) -> list[LogLine]:
        batch = [self._pending.popleft() for _ in range(min(BATCH_LINES, len(self._pending)))]
        if self._dropped:
            batch.insert(0, LogLine(batch[0].at, "warning", f"[{self._dropped} lines were dropped: the log came faster than it was read]"))
            self._dropped = 0
        return batch
