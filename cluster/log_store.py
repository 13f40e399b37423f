"""The output of replicas' servers, kept by the manager: one file of JSON lines per replica, bounded by rotation.

<folder>/<namespace>/<endpoint>/<replica>.log, its predecessor `.log.1`; the newest replicas of an endpoint are kept.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cluster import messages

FILE_BYTES = 4 * 2**20
REPLICAS_KEPT = 20
QUIET_S = 15.0
"""After so long without a line a follower is given None."""
BEHIND = 1000
"""Batches that may wait for a slow follower; older ones are dropped."""
LEVELS = ("debug", "info", "warning", "error")


@dataclasses.dataclass(frozen=True)
class LogEntry:
    """One line. `at` is Unix seconds, `level` one of LEVELS."""

    at: float
    level: str
    replica: str
    text: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which lines: of one replica, at or above a level, at or after `since` (Unix seconds), containing `text`."""

    replica: str | None = None
    level: str | None = None
    since: float = 0.0
    text: str | None = None

    def __contains__(self, entry: LogEntry) -> bool:
        loud = self.level not in LEVELS or entry.level not in LEVELS or LEVELS.index(entry.level) >= LEVELS.index(self.level)
        mine = self.replica is None or entry.replica == self.replica
        return mine and loud and entry.at >= self.since and (self.text is None or self.text in entry.text)


Batch = list[LogEntry] | None
"""New lines, or None: there will be no more."""


@dataclasses.dataclass(eq=False)
class _Follower:
    """Batches for one reader, handed over to its event loop from whichever thread appends."""

    endpoint: tuple[str, str]
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[Batch] = dataclasses.field(default_factory=lambda: asyncio.Queue(BEHIND))

    def give(self, batch: Batch) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._put, batch)

    def _put(self, batch: Batch) -> None:
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(batch)


class Logs(Protocol):
    """What the management API reads logs through."""

    def read(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 200) -> list[LogEntry]:
        """The newest `tail` wanted lines, in order of time."""

    def follow(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 50) -> AsyncIterator[LogEntry | None]:
        """The newest `tail` lines, then new ones as they come; None when it has been quiet, so that the reader can see its
        client leave. Ends when the endpoint is forgotten."""

    def forget(self, namespace: str, name: str) -> None:
        """Delete everything of an endpoint."""


class LogStore:
    """Logs in files. Thread-safe; `append` is called by the manager."""

    def __init__(self, folder: Path, quiet_s: float = QUIET_S) -> None:
        self._folder = folder
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._followers: set[_Follower] = set()

    def append(self, namespace: str, name: str, replica: str, lines: Sequence[messages.LogLine]) -> None:
        """Add a batch of one replica's lines."""
        folder = self._folder / namespace / name
        path = folder / f"{replica}.log"
        text = "".join(json.dumps([line.at, line.level, line.text]) + "\n" for line in lines)
        with self._lock:
            if not path.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._drop_oldest(folder)
            elif path.stat().st_size > FILE_BYTES:
                path.replace(path.with_suffix(".log.1"))
            with path.open("a") as file:
                file.write(text)
            self._tell(namespace, name, [LogEntry(line.at, line.level, replica, line.text) for line in lines])

    def read(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 200) -> list[LogEntry]:
        """See Logs."""
        entries = [entry for path in self._files(namespace, name) for entry in _entries(path) if entry in wanted]
        entries.sort(key=lambda entry: entry.at)
        return entries[-tail:] if tail > 0 else []

    async def follow(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 50) -> AsyncIterator[LogEntry | None]:
        """See Logs."""
        follower = _Follower((namespace, name), asyncio.get_running_loop())
        try:
            for entry in await asyncio.to_thread(self._begin, follower, wanted, tail):
                yield entry
            while True:
                try:
                    batch = await asyncio.wait_for(follower.queue.get(), self._quiet_s)
                except TimeoutError:
                    yield None
                    continue
                if batch is None:
                    return
                for entry in batch:
                    if entry in wanted:
                        yield entry
        finally:
            with self._lock:
                self._followers.discard(follower)

    def forget(self, namespace: str, name: str) -> None:
        """See Logs."""
        folder = self._folder / namespace / name
        with self._lock:
            for path in folder.glob("*"):
                path.unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()
            self._tell(namespace, name, None)

    def _begin(self, follower: _Follower, wanted: Wanted, tail: int) -> list[LogEntry]:
        """Lines up to now; every later batch goes to the follower. Under the lock, so that none is missed or comes twice."""
        with self._lock:
            self._followers.add(follower)
            return self.read(*follower.endpoint, wanted, tail=tail)

    def _tell(self, namespace: str, name: str, batch: Batch) -> None:
        for follower in self._followers:
            if follower.endpoint == (namespace, name):
                follower.give(batch)

    def _files(self, namespace: str, name: str) -> list[Path]:
        return list((self._folder / namespace / name).glob("*.log*"))

    @staticmethod
    def _drop_oldest(folder: Path) -> None:
        files = sorted(folder.glob("*.log*"), key=lambda path: path.stat().st_mtime)
        for path in files[: -2 * REPLICAS_KEPT + 1]:
            path.unlink(missing_ok=True)


def _entries(path: Path) -> Iterator[LogEntry]:
    replica = path.name.removesuffix(".1").removesuffix(".log")
    try:
        with path.open() as file:
            for line in file:
                at, level, text = json.loads(line)
                yield LogEntry(at, level, replica, text)
    except (FileNotFoundError, ValueError):
        return  # rotated away, or the last line of a write that was cut off
