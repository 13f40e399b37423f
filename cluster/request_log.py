"""The log of every request: lines of the gateways' access logs, kept in files by the hour, as they came.

Nothing is parsed when it is written (that is `cluster.request_search`'s, when somebody asks). A chunk that is told twice is
stored once, also when the manager died in between: what counts is `state.json`, written after the lines.

<folder>/2026-01-31T12.000.log and, when an hour is large, .001.log ...; `.range` beside a file has the times of its lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cluster import messages

FILE_BYTES = 64 * 2**20
SEGMENTS = 200
"""How many files of gateways are remembered; each gateway keeps four."""
NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d\.\d{3}\.log")
TIME = re.compile(rb'^\{"time":(\d{1,15}),', re.MULTILINE)
DAY_S = 86400.0
Range = tuple[float, float]
"""Unix seconds of the oldest and the newest line."""


@dataclasses.dataclass(frozen=True)
class State:
    """What is in force: the file that is written to and how long it is, and what has arrived of each segment."""

    file: str = ""
    end: int = 0
    segments: dict[str, int] = dataclasses.field(default_factory=dict)


class RequestLog:
    """Thread-safe, and safe from a second manager that has not ended yet. Raises OSError when the disk does not take it."""

    def __init__(self, folder: Path, days: float, megabytes: int, clock: Callable[[], float]) -> None:
        """Lines older than `days` go, and the oldest ones beyond `megabytes`."""
        self.folder = folder
        self._days = days
        self._bytes = megabytes * 2**20
        self._clock = clock

    def append(self, lines: messages.RequestLines) -> int:
        """Keep what is new; returns how many bytes of the segment have arrived."""
        with self._locked():
            state = self._state()
            received = state.segments.get(lines.segment, 0)
            new = lines.data[max(0, received - lines.first) :]
            if not new:
                return received
            file = self._file_for(state)
            path = self.folder / file
            with _private(path, "ab") as out:
                if file == state.file and out.tell() > state.end:
                    out.truncate(state.end)  # written, but never told to be: its gateway sends it again
                out.write(new)
            end = path.stat().st_size  # `tell` does not know of what was cut off
            _widen(path, new, begins=end == len(new))
            arrived = max(received, lines.first) + len(new)
            kept = {name: count for name, count in state.segments.items() if name != lines.segment} | {lines.segment: arrived}
            self._save(State(file, end, dict(list(kept.items())[-SEGMENTS:])))
            return arrived

    def sweep(self) -> None:
        """Delete what is too old or too much, the oldest first; the files of this hour may be written to, and stay."""
        now = self._clock()
        oldest = now - self._days * DAY_S
        left = sum(path.stat().st_size for path in files(self.folder))
        for path in files(self.folder):
            size = path.stat().st_size
            if path.name[:13] >= _hour(now):
                break
            newest = (range_of(path) or (0.0, path.stat().st_mtime))[1]
            if newest >= oldest and left <= self._bytes:
                continue
            path.unlink(missing_ok=True)
            path.with_suffix(".range").unlink(missing_ok=True)
            left -= size

    def _file_for(self, state: State) -> str:
        """This hour's file, the next one of it when that is full. Never an earlier one: the order of names is that of writing."""
        hour = _hour(self._clock())
        if state.file[:13] < hour:
            return f"{hour}.000.log"
        number = int(state.file[14:17])
        return f"{state.file[:13]}.{number + 1:03}.log" if state.end >= FILE_BYTES and number < 999 else state.file

    def _state(self) -> State:
        try:
            found = json.loads((self.folder / "state.json").read_text())
            state = State(str(found["file"]), int(found["end"]), {str(name): int(count) for name, count in found["segments"].items()})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return State(files(self.folder)[-1].name if files(self.folder) else "", 2**62)
        for path in files(self.folder):
            if path.name > state.file:  # begun, but never told to be
                path.unlink()
        return state

    def _save(self, state: State) -> None:
        fresh = self.folder / ".state.json"
        with _private(fresh, "wb") as out:
            out.write(json.dumps(dataclasses.asdict(state)).encode())
        fresh.replace(self.folder / "state.json")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _private(self.folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _hour(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H")


def files(folder: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(path for path in folder.glob("*.log") if NAME.fullmatch(path.name))


def range_of(path: Path) -> Range | None:
    """When the lines of a file are from; None when that is not known."""
    try:
        oldest, newest = path.with_suffix(".range").read_text().split()
        return float(oldest), float(newest)
    except (FileNotFoundError, ValueError):
        return None


def _widen(path: Path, data: bytes, *, begins: bool) -> None:
    """The range of a file, with a chunk more in it: its first and last line that have a time, as lines come in order of time.

    A file whose earlier range is not known any more stays without one.
    """
    first = TIME.search(data)
    last = TIME.search(data, max(0, data.rfind(b"\n", 0, len(data) - 1)))
    times = [int(match[1]) / 1000 for match in (first, last) if match]
    known = range_of(path)
    if known:
        times += known
    if times and (known or begins):
        with _private(path.with_suffix(".range"), "wb") as out:
            out.write(f"{min(times):.3f} {max(times):.3f}".encode())


@contextlib.contextmanager
def _private(path: Path, mode: str) -> Iterator[IO[bytes]]:
    flags = os.O_CREAT | os.O_CLOEXEC | (os.O_WRONLY | os.O_APPEND if mode == "ab" else os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(os.open(path, flags, 0o600), mode) as file:
        yield file
