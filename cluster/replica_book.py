"""Which replica belonged to which revision, remembered for as long as the request log tells of it: replicas go, their requests stay.

A file of JSON lines, one per replica ever heard of.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

DAY_S = 86400.0


@dataclasses.dataclass(frozen=True)
class Born:
    """`label` is what people are shown (`cluster.messages.ReplicaIdentity`); `at` is when it was last noted."""

    id: str
    label: str
    endpoint_id: str
    revision: int
    at: float


class ReplicaBook:
    """Thread-safe."""

    def __init__(self, file: Path, days: float, clock: Callable[[], float]) -> None:
        """Replicas that were not heard of for `days` are forgotten, at the next start."""
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._oldest = clock() - days * DAY_S
        self._rows = {server_name(row.id): row for row in self._read() if row.at >= self._oldest}
        self._noted: dict[str, float] = {}
        """When each was written since the start: once a day says that it lives still."""

    def note(self, id: str, label: str, endpoint_id: str, revision: int) -> None:
        """A replica lives. Repeating it costs nothing. Raises OSError."""
        now = self._clock()
        if now - self._noted.get(id, 0.0) < DAY_S:
            return
        row = Born(id, label, endpoint_id, revision, now)
        with self._lock:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._file, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600), "a") as out:
                out.write(json.dumps(dataclasses.asdict(row)) + "\n")
            self._rows[server_name(id)] = row
            self._noted[id] = now

    def find(self, server: str) -> Born | None:
        """By what HAProxy calls it, or by its id."""
        return self._rows.get(server_name(server))

    def shorten(self) -> None:
        """Write the file anew, with each replica once and without those that are forgotten. Raises OSError."""
        with self._lock:
            if not self._rows:
                return
            fresh = self._file.with_name(f".{self._file.name}")
            with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as out:
                out.writelines(json.dumps(dataclasses.asdict(row)) + "\n" for row in self._rows.values())
            fresh.replace(self._file)

    def _read(self) -> list[Born]:
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [row for line in lines if (row := _row(line)) is not None]


def server_name(replica_id: str) -> str:
    """As the edge names a replica's server to HAProxy: its id, in the characters that such a name may have."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", replica_id)


def _row(line: str) -> Born | None:
    try:
        found = json.loads(line)
        return Born(found["id"], found["label"], found["endpoint_id"], int(found["revision"]), float(found["at"]))
    except (ValueError, KeyError, TypeError):
        return None  # the last line of a write that was cut off
