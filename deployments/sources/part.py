"""A file that is being received: appended to, resumed and checked."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

from deployments.sources.errors import SourceError
from deployments.sources.listing import File
from deployments.sources.run import Run
from deployments.sources.source import CHUNK


class Checksums:
    """The checksums of content as it comes, of those kinds that the source states; SHA-256 always."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.git_sha1 else None
        self._md5 = hashlib.md5(usedforsecurity=False) if file.md5 else None
        self._crc32 = 0

    def update(self, chunk: bytes) -> None:
        """Takes the next bytes in."""
        self._sha256.update(chunk)
        if self._git:
            self._git.update(chunk)
        if self._md5:
            self._md5.update(chunk)
        if self._file.crc32:
            self._crc32 = zlib.crc32(chunk, self._crc32)

    @property
    def sha256(self) -> str:
        """In lower-case hexadecimal."""
        return self._sha256.hexdigest()

    def wrong(self) -> str | None:
        """The name of a checksum that is not what the source states, None when all are right."""
        found = {
            "sha256": self.sha256,
            "git_sha1": self._git.hexdigest() if self._git else "",
            "md5": self._md5.hexdigest() if self._md5 else "",
            "crc32": f"{self._crc32:08x}",
        }
        return next((name for name, value in found.items() if (stated := getattr(self._file, name)) and stated != value), None)


class Part:
    """The first bytes of `file` at `path`, which goes on where an earlier try ended. A context manager."""

    def __init__(self, file: File, path: Path, run: Run) -> None:
        self.file, self._path, self._run = file, path, run
        self.size = 0
        """Bytes that are here."""
        self.sums = Checksums(file)

    def __enter__(self) -> Self:
        self._output = self._path.open("ab+")
        if self._output.seek(0, os.SEEK_END) > self.file.size:
            self._output.truncate(0)
        self._output.seek(0)
        while chunk := self._output.read(CHUNK):
            self._run.check()
            self._count(chunk)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._output.close()

    def append(self, chunk: bytes) -> None:
        """Adds the next bytes. Raises SourceError ChecksumMismatch past the file's stated size."""
        if self.size + len(chunk) > self.file.size:
            raise SourceError(f"{self.file.path} is longer than the source's listing says", "ChecksumMismatch")
        self._output.write(chunk)
        self._count(chunk)

    def restart(self) -> None:
        """Throws everything away."""
        self._output.truncate(0)
        self._run.add(-self.size)
        self.size, self.sums = 0, Checksums(self.file)

    def finish(self, target: Path) -> None:
        """Moves the checked file to its place, for good even when the power goes."""
        self._output.flush()
        os.fsync(self._output.fileno())
        self._path.rename(target)

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.sums.update(chunk)
        self._run.add(len(chunk))
