"""The output of replicas' servers, kept by the manager: one file of JSON lines per replica, bounded by rotation.

<folder>/<namespace>/<endpoint>/<replica>.log, its predecessor `.log.1`; the newest replicas of an endpoint are kept.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from cluster import messages

FILE_BYTES = 4 * 2**20
REPLICAS_KEPT = 20
FOLLOW_PAUSE_S = 0.5
LEVELS = ("debug", "info", "warning", "error")


@dataclasses.dataclass(frozen=True)
class LogEntry:
    """One line. `at` is Unix seconds, `level` one of LEVELS."""

    at: float
    level: str
    replica: str
    text: str


class Logs(Protocol):
    """What the management API reads logs through."""

    def read(
        self,
        namespace: str,
        name: str,
        *,
        replica: str | None = None,
        level: str | None = None,
        since: float = 0.0,
        tail: int = 200,
        text: str | None = None,
    ) -> list[LogEntry]:
        """The newest `tail` lines at or above `level`, at or after `since`, containing `text`; in order of time."""

    def follow(
        self, namespace: str, name: str, *, replica: str | None = None, level: str | None = None, tail: int = 50
    ) -> Iterator[LogEntry | None]:
        """The newest `tail` lines, then new ones as they come; None now and then, so that the reader can see its client leave."""

    def forget(self, namespace: str, name: str) -> None:
        """Delete everything of an endpoint."""


class LogStore:
    """Logs in files. Thread-safe; `append` is called by the manager."""

    def __init__(self, folder: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._pause = pause
        self._lock = threading.Lock()

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

    def read(
        self,
        namespace: str,
        name: str,
        *,
        replica: str | None = None,
        level: str | None = None,
        since: float = 0.0,
        tail: int = 200,
        text: str | None = None,
    ) -> list[LogEntry]:
        """See Logs."""
        wanted = LEVELS[LEVELS.index(level) :] if level in LEVELS else LEVELS
        entries = [
            entry
            for path in self._files(namespace, name, replica)
            for entry in _entries(path)
            if entry.at >= since and entry.level in wanted and (text is None or text in entry.text)
        ]
        entries.sort(key=lambda entry: entry.at)
        return entries[-tail:] if tail > 0 else []

    def follow(
        self, namespace: str, name: str, *, replica: str | None = None, level: str | None = None, tail: int = 50
    ) -> Iterator[LogEntry | None]:
        """See Logs."""
        shown: set[LogEntry] = set()
        entries = self.read(namespace, name, replica=replica, level=level, tail=max(1, tail))
        while True:
            fresh = [entry for entry in entries if entry not in shown]
            yield from fresh
            if not fresh:
                yield None
                self._pause(FOLLOW_PAUSE_S)
            # Batches arrive late and in any order between replicas, hence a look a little back.
            newest = max((entry.at for entry in entries), default=time.time())
            shown = {entry for entry in shown | set(fresh) if entry.at > newest - 30}
            entries = self.read(namespace, name, replica=replica, level=level, since=newest - 10, tail=10_000)

    def forget(self, namespace: str, name: str) -> None:
        """See Logs."""
        folder = self._folder / namespace / name
        with self._lock:
            for path in folder.glob("*"):
                path.unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()

    def _files(self, namespace: str, name: str, replica: str | None) -> list[Path]:
        folder = self._folder / namespace / name
        return [path for path in folder.glob("*.log*") if replica is None or path.name.startswith(replica)]

    @staticmethod
    def _drop_oldest(folder: Path) -> None:
        files = sorted(folder.glob("*.log*"), key=lambda path: path.stat().st_mtime)
        for path in files[: -2 * REPLICAS_KEPT + 1]:
            path.unlink(missing_ok=True)


def _entries(path: Path) -> Iterator[LogEntry]:
    replica = path.name.split(".log", 1)[0]
    try:
        with path.open() as file:
            for line in file:
                at, level, text = json.loads(line)
                yield LogEntry(at, level, replica, text)
    except (FileNotFoundError, ValueError):
        return  # rotated away, or the last line of a write that was cut off
