"""The node's copies of one model: complete ones under their version, partial ones aside, and who may use which.

A copy appears by one rename, with a manifest of its files, and is never changed afterwards. Replicas of a node share
it: a lock file per version lets one of them download while the others wait.

    <home>/<version>/...              complete, with MANIFEST
    <home>/.partial/<version>/        files/ (verified) and incoming/ (being received)
    <home>/.locks/, .known/           one lock per version; the last version seen per revision, rules and credential
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deployments.sources.listing import MANIFEST


@dataclasses.dataclass(frozen=True)
class Entry:
    """A verified file of a copy. `sha256` is of what lies here; `identity` is the source's own name for the content."""

    path: str
    size: int
    sha256: str
    identity: str


class Copies:
    """The copies of one source on this node."""

    def __init__(self, home: Path) -> None:
        """`home` is this source's own folder in the model cache; it is made when it is not there."""
        self._home = home
        for folder in (home, home / ".partial", home / ".locks", home / ".known"):
            folder.mkdir(parents=True, exist_ok=True)

    def complete(self, version: str) -> Path | None:
        """The folder of a complete copy, None when there is none or a file of it is missing or cut."""
        folder = self._home / version
        return folder if self._is_whole(folder) else None

    def partial(self, version: str) -> Path:
        """The folder in which a copy is put together; what an interrupted download left is in it."""
        folder = self._home / ".partial" / version
        for part in ("files", "incoming"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, version: str, entries: Sequence[Entry]) -> Path:
        """Makes the partial copy the complete one, in one step. The caller holds the version's lock."""
        partial, folder = self._home / ".partial" / version, self._home / version
        manifest = partial / "files" / MANIFEST
        _write_durably(manifest, json.dumps({"files": [dataclasses.asdict(entry) for entry in entries]}, indent=1))
        if folder.exists():  # damaged, else nobody would have downloaded it again
            self._remove(folder)
        (partial / "files").rename(folder)
        _sync_folder(self._home)
        shutil.rmtree(partial, ignore_errors=True)
        return folder

    def drop_partial(self, version: str) -> None:
        """Gives the disk space of an unfinished copy back."""
        self._remove(self._home / ".partial" / version)

    def known(self) -> dict[tuple[str, int], tuple[Path, Entry]]:
        """Files of the complete copies by the source's identity for their content, and size."""
        found = ((folder / entry.path, entry) for folder in self._home.iterdir() for entry in _manifest(folder))
        return {(entry.identity, entry.size): (path, entry) for path, entry in found if entry.identity and _size(path) == entry.size}

    def received(self, version: str) -> int:
        """Bytes that are already in a partial copy, whoever is bringing them."""
        return sum(_size(Path(base, name)) or 0 for base, _, names in os.walk(self._home / ".partial" / version) for name in names)

    @contextlib.contextmanager
    def lock(self, version: str, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the version's lock, which goes with its process, however that ends.

        `waiting` is called again and again while somebody else holds it: it waits a little, and may raise to give up.
        """
        with (self._home / ".locks" / version).open("w") as file:
            while not _try_lock(file.fileno()):
                waiting()
            yield

    def remember(self, question: Sequence[str], version: str) -> None:
        """Keeps the answer of a source that could be reached: this revision, for these rules and this credential."""
        path = self._known(question)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        temporary.write_text(version)
        temporary.rename(path)

    def recall(self, question: Sequence[str]) -> Path | None:
        """The complete copy that answered the same question last time."""
        try:
            return self.complete(self._known(question).read_text())
        except FileNotFoundError:
            return None

    def _known(self, question: Sequence[str]) -> Path:
        return self._home / ".known" / hashlib.sha256("\0".join(question).encode()).hexdigest()

    def _is_whole(self, folder: Path) -> bool:
        entries = _manifest(folder)
        return bool(entries) and all(_size(folder / entry.path) == entry.size for entry in entries)

    def _remove(self, folder: Path) -> None:
        """Out of sight first, so that a copy is never seen half removed."""
        doomed = self._home / ".partial" / f"doomed-{uuid.uuid4().hex}"
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)


def _manifest(folder: Path) -> list[Entry]:
    """The manifest's entries; none when there is no manifest, or one that cannot be read."""
    try:
        return [Entry(**row) for row in json.loads((folder / MANIFEST).read_text())["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
