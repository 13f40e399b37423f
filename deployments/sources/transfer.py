"""Brings the chosen files of a source into a partial copy: in parallel, resumable at the byte, verified, with progress.

A file is received under `incoming/` and moves to `files/` only once its size and checksums are right. What a source
is and how its errors read is the `Source`'s; where copies lie is `copies`'.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from deployments.sources.copies import Copies, Entry
from deployments.sources.errors import Cancelled, SourceError
from deployments.sources.listing import File
from deployments.sources.part import Checksums, Part
from deployments.sources.run import Run, retrying
from deployments.sources.source import CHUNK, Source

WINDOW = 1024**3
"""Bytes asked for at once: object stores and the caches before them refuse to send some tens of gigabytes in one answer."""
RESERVE = 64 * 1024**2
"""Bytes of disk that a download leaves free for everybody else."""
PARALLEL = 8


class Transfer:
    """Brings files into one partial copy. The caller holds the copy's lock."""

    def __init__(self, source: Source, copies: Copies, partial: Path, run: Run) -> None:
        self._source, self._partial, self._run = source, partial, run
        self._known = copies.known()
        self._failed = threading.Event()

    def make_room(self, files: Sequence[File]) -> None:
        """Raises SourceError DiskFull when what is missing of `files` does not fit on the disk."""
        missing = sum(file.size - self._here(file) for file in files)
        free = shutil.disk_usage(self._partial).free
        if missing and missing + RESERVE > free:
            raise disk_full(f"it needs {_megabytes(missing)} more, and {_megabytes(free)} are free")

    def bring(self, files: Sequence[File]) -> list[Entry]:
        """All of `files`, verified. Raises SourceError or Cancelled; what was received by then stays for the next try."""
        with concurrent.futures.ThreadPoolExecutor(PARALLEL, "model-download") as pool, contextlib.ExitStack() as failed:
            failed.callback(pool.shutdown, wait=False, cancel_futures=True)
            failed.callback(self._failed.set)
            work = [pool.submit(self._one, file) for file in files]
            entries = [finished.result() for finished in concurrent.futures.as_completed(work)]
            failed.pop_all()
            return entries

    def _one(self, file: File) -> Entry:
        self._check()
        target = self._partial / "files" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return self._again(file, target)
        if entry := self._linked(file, target):
            return entry
        return self._receive(retrying(lambda: self._source.describe(file), self._run), target)

    def _linked(self, file: File, target: Path) -> Entry | None:
        """The same content of another revision, so that a new one brings only what changed."""
        path, entry = self._known.get((file.identity, file.size), (None, None))
        if path is None or entry is None:
            return None
        try:
            os.link(path, target)
        except FileNotFoundError:  # that copy has just gone
            return None
        self._run.add(file.size)
        return dataclasses.replace(entry, path=file.path)

    def _again(self, file: File, target: Path) -> Entry:
        """A file that an interrupted download had finished: it was moved there verified."""
        sums = Checksums(file)
        with target.open("rb") as content:
            while not file.sha256 and (chunk := content.read(CHUNK)):
                self._check()
                sums.update(chunk)
        self._run.add(file.size)
        return Entry(file.path, file.size, file.sha256 or sums.sha256, file.identity)

    def _receive(self, file: File, target: Path) -> Entry:
        with Part(file, self._incoming(file), self._run) as part:
            resumed = part.size > 0
            self._fill(part)
            if part.sums.wrong() and resumed:  # what a crash left behind may be what is wrong: once more from the beginning
                part.restart()
                self._fill(part)
            if wrong := part.sums.wrong():
                part.restart()
                raise SourceError(
                    f"{file.path} arrived with a wrong {wrong}: the source, or something on the way, damages it", "ChecksumMismatch"
                )
            part.finish(target)
            return Entry(file.path, file.size, part.sums.sha256, file.identity)

    def _fill(self, part: Part) -> None:
        """Receives what is missing. Only tries that bring no byte are counted as failures in a row."""
        failures = 0
        while (before := part.size) < part.file.size:
            self._check()
            trouble = SourceError(f"the source stopped sending {part.file.path}", "SourceUnreachable", permanent=False)
            try:
                self._window(part)
            except SourceError as error:
                if error.permanent:
                    raise
                trouble = error
            failures = 0 if part.size > before else failures + 1
            if failures >= self._run.patience.attempts:
                raise trouble
            if failures:
                self._run.wait(self._run.patience.delay(failures))

    def _window(self, part: Part) -> None:
        stop = min(part.file.size, part.size + WINDOW)
        with self._source.read(part.file, part.size, stop) as content:
            if content.start != part.size:
                part.restart()
            for chunk in content.chunks:
                self._check()
                part.append(chunk)

    def _check(self) -> None:
        self._run.check()
        if self._failed.is_set():
            raise Cancelled

    def _here(self, file: File) -> int:
        for path in (self._partial / "files" / file.path, self._incoming(file)):
            with contextlib.suppress(OSError):
                return min(path.stat().st_size, file.size)
        return file.size if (file.identity, file.size) in self._known else 0

    def _incoming(self, file: File) -> Path:
        """One name per path and content, so that parts of different contents never mix."""
        return self._partial / "incoming" / hashlib.sha256(f"{file.path}\0{file.size}\0{file.identity}".encode()).hexdigest()


def disk_full(detail: str) -> SourceError:
    """The error for a model cache without room."""
    return SourceError(f"the disk of the model cache has no room for the model: {detail}; make room and try again", "DiskFull")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
