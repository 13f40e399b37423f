"""Takes in HAProxy's access log from its ring and appends it to a rotating file of JSON lines.

Lines are not parsed here: at thousands of requests a second that would cost more than answering them. What runs now is read from
HAProxy's tables (`gateway.activity`); `gateway.answers` counts what was answered. A line has no key, no header and no query in it:
HAProxy's log format sees to that, and to it that each is one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

KEPT_FILES = 3
CHUNK = 1 << 20
PAUSE_S = 0.05
"""Between two readings: HAProxy keeps lines meanwhile, and one reading takes many."""


class AccessLog:
    """The listening end of the ring."""

    def __init__(self, socket: Path, file: Path, file_bytes: int, seen: Callable[[bytes], None]) -> None:
        """`seen` is shown every reading: whole lines."""
        self._socket = socket
        self._seen = seen
        self._file = RotatingFile(file, file_bytes)
        self._server: asyncio.Server | None = None
        self._senders: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """HAProxy connects by itself, and sends what it has kept meanwhile."""
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self._socket), limit=CHUNK)

    async def stop(self) -> None:
        """Stops listening; HAProxy keeps lines for whoever listens next."""
        if self._server is not None:
            self._server.close()
        for writer in self._senders:
            writer.close()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._take_in(reader, writer), name="access log")
        self._senders[writer] = task
        task.add_done_callback(lambda _: self._senders.pop(writer, None))

    async def _take_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(CHUNK):
                lines, end, rest = (rest + data).rpartition(b"\n")
                self._file.append(lines + end)
                self._seen(lines)
                await asyncio.sleep(PAUSE_S)


class RotatingFile:
    """Appends; beyond `limit` bytes the file becomes `<name>.1` and a new one is begun. `KEPT_FILES` old ones are kept."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit

    def append(self, data: bytes) -> None:
        """Writes at once. What cannot be written (a full disk) is lost: requests do not wait for their log."""
        if not data:
            return
        with contextlib.suppress(OSError):
            with self._path.open("ab") as file:
                file.write(data)
                full = file.tell() >= self._limit
            if full:
                self._rotate()

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, KEPT_FILES + 1))]
        for old, older in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                old.replace(older)
