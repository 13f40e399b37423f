"""The output of replicas' servers, kept by the manager: files of JSON lines per replica, bounded by rotation and by age.

<folder>/<namespace>/<endpoint>/<replica>.log, its predecessor `.log.1`; the newest replicas of an endpoint are kept. Lines of
the level debug, of which there is one per request, have files of their own (`<replica>.debug.log`): they push out no others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cluster import errors, messages

FILE_BYTES = 4 * 2**20
REPLICAS_KEPT = 20
QUIET_S = 15.0
"""After so long without a line a follower is given None."""
BEHIND = 1000
"""Batches that may wait for a slow follower; older ones are dropped."""
LEVELS = ("debug", "info", "warning", "error")
DEBUG = ".debug"
PLAIN = re.compile(r"[A-Za-z0-9_.:/-]+")
"""Text that is the same in JSON."""
CURSOR = re.compile(r"(\d{1,12}(?:\.\d{1,20})?):(\d{1,6})")
DAY_S = 86400.0


@dataclasses.dataclass(frozen=True)
class LogEntry:
    """One line. `at` is Unix seconds, `level` one of LEVELS."""

    at: float
    level: str
    replica: str
    text: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which lines: of one replica, at or above a level, from `since` to `until` (Unix seconds), containing `text`."""

    replica: str | None = None
    level: str | None = None
    since: float = 0.0
    text: str | None = None
    until: float | None = None

    def __contains__(self, entry: LogEntry) -> bool:
        loud = self.level not in LEVELS or entry.level not in LEVELS or LEVELS.index(entry.level) >= LEVELS.index(self.level)
        mine = self.replica is None or entry.replica == self.replica
        now = self.since <= entry.at and (self.until is None or entry.at <= self.until)
        return mine and loud and now and (self.text is None or self.text in entry.text)

    def may_be_in(self, path: Path) -> bool:
        """Whether a file may have such lines, by its name."""
        replica, debug = _replica(path)
        return self.replica in (None, replica) and not (debug and self.level in LEVELS[1:])


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

    def page(self, namespace: str, name: str, wanted: Wanted, *, tail: int, before: str | None) -> tuple[list[LogEntry], str | None]:
        """The newest `tail` wanted lines before a cursor, in order of time, and the cursor for those before them (None = no more).

        Raises InvalidRequest for a cursor that was none.
        """

    def follow(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 50) -> AsyncIterator[LogEntry | None]:
        """The newest `tail` lines, then new ones as they come; None when it has been quiet, so that the reader can see its
        client leave. Ends when the endpoint is forgotten."""

    def forget(self, namespace: str, name: str) -> None:
        """Delete everything of an endpoint."""


class LogStore:
    """Logs in files. Thread-safe; `append` is called by the manager."""

    def __init__(self, folder: Path, quiet_s: float = QUIET_S, days: float = 30.0, clock: Callable[[], float] = time.time) -> None:
        """Lines older than `days` are deleted by `sweep`."""
        self._folder = folder
        self._quiet_s = quiet_s
        self._days = days
        self._clock = clock
        self._lock = threading.Lock()
        self._followers: set[_Follower] = set()

    def append(self, namespace: str, name: str, replica: str, lines: Sequence[messages.LogLine]) -> None:
        """Add a batch of one replica's lines."""
        folder = self._folder / namespace / name
        quiet = [line for line in lines if line.level == LEVELS[0]]
        with self._lock:
            self._write(folder / f"{replica}.log", [line for line in lines if line.level != LEVELS[0]])
            self._write(folder / f"{replica}{DEBUG}.log", quiet)
            self._tell(namespace, name, [LogEntry(line.at, line.level, replica, line.text) for line in lines])

    def read(self, namespace: str, name: str, wanted: Wanted, *, tail: int = 200) -> list[LogEntry]:
        """See Logs."""
        entries = self._wanted(namespace, name, wanted)
        return entries[-tail:] if tail > 0 else []

    def page(self, namespace: str, name: str, wanted: Wanted, *, tail: int, before: str | None) -> tuple[list[LogEntry], str | None]:
        """See Logs."""
        entries = self._wanted(namespace, name, wanted)
        at, seen = _cursor(before) if before is not None else (float("inf"), 0)
        # Several lines may have the time of the cursor: so many of them, from the end, have been shown.
        same = [entry for entry in entries if entry.at == at]
        left = [entry for entry in entries if entry.at < at] + same[: len(same) - seen]
        shown = left[-tail:]
        if len(shown) == len(left):
            return shown, None
        first = shown[0].at
        count = sum(entry.at == first for entry in shown) + (seen if first == at else 0)
        return shown, f"{first!r}:{count}"

    def sweep(self) -> None:
        """Delete the lines that are too old. Raises OSError."""
        oldest = self._clock() - self._days * DAY_S
        for path in self._folder.glob("*/*/*.log*"):
            with self._lock:
                if not path.exists():
                    continue
                if path.stat().st_mtime < oldest:
                    path.unlink()
                elif next((entry.at < oldest for entry in _entries(path)), False):
                    _shorten(path, oldest)

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

    def _wanted(self, namespace: str, name: str, wanted: Wanted) -> list[LogEntry]:
        """In order of time, lines of the same time in the order of files and lines."""
        paths = [path for path in sorted((self._folder / namespace / name).glob("*.log*")) if wanted.may_be_in(path)]
        needle = wanted.text if wanted.text is not None and PLAIN.fullmatch(wanted.text) else ""
        entries = [entry for path in paths for entry in _entries(path, needle) if entry in wanted]
        return sorted(entries, key=lambda entry: entry.at)

    @staticmethod
    def _write(path: Path, lines: Sequence[messages.LogLine]) -> None:
        if not lines:
            return
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _drop_oldest(path)
        elif path.stat().st_size > FILE_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("a") as file:
            file.write("".join(json.dumps([line.at, line.level, line.text]) + "\n" for line in lines))


def _drop_oldest(path: Path) -> None:
    """Make room for a file beside others of its kind."""
    others = [other for other in path.parent.glob("*.log*") if _replica(other)[1] == _replica(path)[1]]
    for old in sorted(others, key=lambda other: other.stat().st_mtime)[: -2 * REPLICAS_KEPT + 1]:
        old.unlink(missing_ok=True)


def _shorten(path: Path, oldest: float) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text("".join(json.dumps([entry.at, entry.level, entry.text]) + "\n" for entry in _entries(path) if entry.at >= oldest))
    fresh.replace(path)


def _replica(path: Path) -> tuple[str, bool]:
    """(replica, whether it has the level debug) of a file."""
    name = path.name.removesuffix(".1").removesuffix(".log")
    return name.removesuffix(DEBUG), name.endswith(DEBUG)


def _entries(path: Path, needle: str = "") -> Iterator[LogEntry]:
    """The lines of a file, of those alone that have `needle` in them."""
    replica, _ = _replica(path)
    try:
        with path.open() as file:
            for line in file:
                if needle in line:
                    at, level, text = json.loads(line)
                    yield LogEntry(at, level, replica, text)
    except (FileNotFoundError, ValueError):
        return  # rotated away, or the last line of a write that was cut off


def _cursor(text: str) -> tuple[float, int]:
    match = CURSOR.fullmatch(text)
    if match is None:
        raise errors.InvalidRequest("before is what an earlier answer gave as its cursor.", param="before")
    return float(match[1]), int(match[2])
