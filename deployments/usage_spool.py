"""Usage records on the node's disk, between the server that made them and the supervisor that delivers them: JSON lines in a folder.

A folder `HOME/usage/REPLICA-xxxx` has `replica.json` (whose records they are), numbered segments that the server appends to,
`delivered` (how far the manager has them), `open` (what the server has not ended yet: `deployments.usage_open`), and `bell`, a FIFO that
says when there is something new, and of which keys. Server and supervisor hold a shared lock on it; whoever gets it alone knows that
both are dead, and delivers what they left.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.messages import ReplicaIdentity, Usage
from deployments import usage_open
from deployments.locking import locked

SEGMENT_BYTES = 4 << 20
MOST_SEGMENTS = 64
"""That wait for the manager; with them a spool holds some 600,000 records."""
MOST_HELD = 10_000
"""Records kept in memory while the disk takes none."""
READ_BYTES = 1 << 18
RING_BYTES = 1 << 16
"""Of a bell that was not heard for long."""
LONGEST_KEY = 300
"""Characters. Four bytes each, they reach a pipe whole."""
MOST_RECORDS = 500
"""Of a batch."""
FIELDS = frozenset(field.name for field in dataclasses.fields(Usage))
IDENTITY_FIELDS = frozenset(field.name for field in dataclasses.fields(ReplicaIdentity))
"""Others are of another version."""


class Nowhere:
    """The spool of a server without one."""

    def add(self, record: bytes, key: str) -> None:
        """Forgets it."""


class Writer:
    """The server's end. A disk that is full costs records, never an answer: see `add`."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        most_segments: int = MOST_SEGMENTS,
        say: Callable[[str], object] = sys.stderr.write,
    ) -> None:
        """Raises OSError where there can be no spool."""
        self._folder = folder
        self._segment_bytes, self._most_segments, self._say = segment_bytes, most_segments, say
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._bell = _opened_bell(folder)
        self._held: collections.deque[bytes] = collections.deque()
        self._torn = False
        self._lost = 0
        self._number = max((int(path.stem) for path in folder.glob("*.jsonl")), default=-1)
        self._file = -1
        self._size = segment_bytes
        self._next()

    def add(self, record: bytes, key: str) -> None:
        """Appends a line. What cannot be written is held, and written with a later one; when too much is held, it is lost, and said."""
        if len(self._held) >= MOST_HELD:
            self._lost += 1
            if self._lost & (self._lost - 1) == 0:  # 1, 2, 4, 8, ...
                self._say(f"ERROR moorage: {self._lost} usage records are lost: they can be neither delivered nor kept\n")
        else:
            self._held.append(record + b"\n")
        try:
            self._write()
        except OSError as exc:
            if len(self._held) == 1:
                self._say(f"ERROR moorage: usage records wait in memory: {exc.strerror}\n")
        if self._bell >= 0:
            with contextlib.suppress(OSError):  # nobody listens, or the bell is ringing
                os.write(self._bell, key[:LONGEST_KEY].encode(errors="replace") + b"\n")

    def _write(self) -> None:
        while self._held:
            if self._size >= self._segment_bytes:
                self._next()
            line = b"\n" + self._held[0] if self._torn else self._held[0]
            written = os.write(self._file, line)
            self._size += written
            if written < len(line):
                self._torn = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False
            self._held.popleft()

    def _next(self) -> None:
        """Goes on in a new segment. Raises OSError where there are too many already."""
        if sum(1 for _ in self._folder.glob("*.jsonl")) >= self._most_segments:
            raise OSError(errno.EDQUOT, "the manager has not taken any for long")
        file = os.open(_segment(self._folder, self._number + 1), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number, self._size, self._torn = file, self._number + 1, 0, False

    def close(self) -> None:
        """Gives up the lock."""
        for fd in (self._file, self._bell, self._lock):
            if fd >= 0:
                os.close(fd)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Records that were read together. `segment` and `offset` are where the next one begins."""

    records: Sequence[Usage]
    segment: int
    offset: int
    damaged: int
    """Lines that are no records: of a full disk, or another version."""


class Reader:
    """The supervisor's end, from where the last acknowledged batch ended. Holds the folder's lock until `close` or `remove`."""

    def __init__(self, folder: Path, lock: int) -> None:
        """`lock` is a file descriptor of the folder that has the lock."""
        self.folder = folder
        self._lock = lock
        self._segment, self._offset = _place(folder)

    @property
    def identity(self) -> ReplicaIdentity:
        """Whose records these are. Raises OSError, ValueError, TypeError for a folder that was not finished."""
        told = dict(json.loads((self.folder / "replica.json").read_text()))
        return ReplicaIdentity(**{name: value for name, value in told.items() if name in IDENTITY_FIELDS})

    def next(self) -> Batch | None:
        """The next records; None when there are none. A line without its end is none yet."""
        while True:
            last = not _segment(self.folder, self._segment + 1).exists()  # first, since it may come while the other is read
            data = self._read()
            if b"\n" in data:
                return self._batch(data)
            if last:
                return None
            _segment(self.folder, self._segment).unlink(missing_ok=True)
            self._move(self._segment + 1, 0)

    def acknowledge(self, batch: Batch) -> None:
        """The batch has been delivered: it is not read again, by nobody."""
        self._move(batch.segment, batch.offset)

    def salvage(self) -> None:
        """The server is dead: what it had open is to be read as well. Raises OSError on a full disk: it can be done again then."""
        if records := usage_open.left(self.folder):
            number = max((int(path.stem) for path in self.folder.glob("*.jsonl")), default=self._segment) + 1
            fresh = self.folder / "salvaged"
            fresh.write_bytes(b"".join(record + b"\n" for record in records))
            fresh.replace(_segment(self.folder, number))
        (self.folder / usage_open.NAME).unlink(missing_ok=True)  # a death before this tells them twice, under the same ids

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Gives up the lock; another may go on."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _read(self) -> bytes:
        with contextlib.suppress(FileNotFoundError), _segment(self.folder, self._segment).open("rb") as file:
            file.seek(self._offset)
            return file.read(READ_BYTES)
        return b""

    def _batch(self, data: bytes) -> Batch:
        lines = data.split(b"\n", MOST_RECORDS)[:-1]  # what is behind the last of them waits
        read = [_record(line) for line in lines if line]
        records = [record for record in read if record is not None]
        length = sum(map(len, lines)) + len(lines)
        return Batch(records, self._segment, self._offset + length, len(read) - len(records))

    def _move(self, segment: int, offset: int) -> None:
        self._segment, self._offset = segment, offset
        with contextlib.suppress(OSError):  # on a full disk the rest is sent again after a restart, which does no harm
            file = os.open(self.folder / "delivered", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(file, b"%08d %016d\n" % (segment, offset), 0)
            finally:
                os.close(file)


def create(parent: Path, identity: ReplicaIdentity) -> Reader:
    """A new spool, 0700, in `parent`. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(parent):  # nobody may adopt a folder that is made but not yet locked
        folder = Path(tempfile.mkdtemp(prefix=re.sub(r"[^A-Za-z0-9_-]", "_", identity.id) + "-", dir=parent))
        (folder / "replica.json").write_text(json.dumps(dataclasses.asdict(identity)))
        os.mkfifo(folder / "bell", 0o600)
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_SH)
        return Reader(folder, lock)


def adopt(parent: Path) -> list[Reader]:
    """The spools whose server and supervisor are dead, locked for the caller alone."""
    found: list[Reader] = []
    with contextlib.suppress(OSError), locked(parent):
        for folder in sorted(parent.iterdir()):
            with contextlib.suppress(OSError):  # gone meanwhile
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:  # held by the living
                    os.close(lock)
                else:
                    found.append(Reader(folder, lock))
    return found


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.jsonl"


def _opened_bell(folder: Path) -> int:
    try:
        return os.open(folder / "bell", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # the supervisor looks by itself from time to time
        return -1


def _place(folder: Path) -> tuple[int, int]:
    try:
        segment, offset = (folder / "delivered").read_text().split()
        return int(segment), int(offset)
    except (OSError, ValueError):  # nothing delivered yet, or not known: sent again
        return min((int(path.stem) for path in folder.glob("*.jsonl")), default=0), 0


def _record(line: bytes) -> Usage | None:
    try:
        told = json.loads(line)
        return Usage(**{name: value for name, value in told.items() if name in FIELDS})
    except (ValueError, TypeError, AttributeError):
        return None
