"""The port to where models are: `hub.Hub` and `s3.Bucket` are the adapters behind it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Protocol

from deployments.sources.listing import File, Listing

CHUNK = 1024 * 1024
"""Bytes that are handled at once."""


@dataclasses.dataclass(frozen=True)
class Content:
    """The bytes of a file from `start` on: where they were asked for, or 0 when the source cannot begin elsewhere."""

    start: int
    chunks: Iterator[bytes]


class Source(Protocol):
    """Somewhere models are. Methods block, may be called by many threads, and raise SourceError alone."""

    def list(self) -> Listing:
        """Everything there is."""

    def describe(self, file: File) -> File:
        """The same file with the checksums that the listing did not have."""

    def read(self, file: File, start: int, stop: int) -> contextlib.AbstractContextManager[Content]:
        """Bytes `start` up to `stop` (exclusive) of the file as it was listed. Fewer may come; the caller asks again."""
