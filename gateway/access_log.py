"""Takes in HAProxy's access log from its ring: a rotating file of JSON lines, and the activity that the manager is told.

Times in it are Unix milliseconds. A line has no key, no header and no query in it: HAProxy's log format sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

KEPT_FILES = 3
NOTHING = "-"
"""What HAProxy writes where there is nothing to write."""
WATCHING = ("/health", "/v1/models")
"""Paths that show interest in an endpoint's state, not use of it."""


class Counter:
    """What was seen since the last `take`: finished requests per endpoint with the last one's time, and keys in use."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[int, float]] = {}
        self._keys: dict[str, float] = {}

    def line(self, row: Mapping[str, Any]) -> None:
        """Counts one access-log line: an endpoint's only when the request got past the edge's own refusals."""
        at = row["time"] / 1000
        if row["key"] != NOTHING:
            self._keys[row["key"]] = max(at, self._keys.get(row["key"], 0.0))
        watching = row["method"] == "GET" and row["path"].endswith(WATCHING)
        if row["endpoint"] != NOTHING and (row["server"] != NOTHING or row["slow"] == "cold") and not watching:
            self._add(row["endpoint"], 1, at)

    def take(self) -> tuple[dict[str, tuple[int, float]], dict[str, float]]:
        """(requests, keys used) since the last call."""
        requests, self._requests = self._requests, {}
        used, self._keys = self._keys, {}
        return requests, used

    def give_back(self, requests: Mapping[str, tuple[int, float]], used: Mapping[str, float]) -> None:
        """Counts again what could not be delivered."""
        for endpoint, (count, at) in requests.items():
            self._add(endpoint, count, at)
        for key, at in used.items():
            self._keys[key] = max(at, self._keys.get(key, 0.0))

    def _add(self, endpoint: str, count: int, at: float) -> None:
        before, last = self._requests.get(endpoint, (0, 0.0))
        self._requests[endpoint] = (before + count, max(last, at))


class AccessLog:
    """The listening end of the ring."""

    def __init__(self, socket: Path, file: Path, file_bytes: int) -> None:
        self._socket = socket
        self._handler = logging.handlers.RotatingFileHandler(file, maxBytes=file_bytes, backupCount=KEPT_FILES, delay=True)
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._server: asyncio.Server | None = None
        self._senders: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self.counter = Counter()

    async def start(self) -> None:
        """HAProxy connects by itself, and sends what it has kept meanwhile."""
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self._socket))

    async def stop(self) -> None:
        """Stops listening; HAProxy keeps lines for whoever listens next."""
        if self._server is not None:
            self._server.close()
        for writer in self._senders:
            writer.close()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)
        self._handler.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._take_in(reader, writer), name="access log")
        self._senders[writer] = task
        task.add_done_callback(lambda _: self._senders.pop(writer, None))

    async def _take_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Frames are `length SPACE text`."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                size = int(await reader.readuntil(b" "))
                self._line((await reader.readexactly(size)).decode("utf-8", "replace").rstrip("\n"))

    def _line(self, text: str) -> None:
        self._handler.emit(logging.makeLogRecord({"msg": text}))
        try:
            self.counter.line(json.loads(text))
        except (ValueError, KeyError, TypeError):
            log.warning("an access-log line could not be read")
