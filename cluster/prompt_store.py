"""Prompts and answers of endpoints that ask for them to be kept: in files by the hour, deleted as a whole when their time is over.

<folder>/<namespace>/<endpoint>/2026-01-31T12.jsonl. What is struck out of them was struck out before they came here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cluster import messages

HOUR_S = 3600.0
DAY_S = 86400.0
ENDPOINT_BYTES = 256 * 2**20
"""Of one endpoint; beyond it the oldest hours go."""


class Prompts(Protocol):
    """What the management API reads prompts through."""

    def find(self, namespace: str, name: str, request: str, ttl_days: float) -> messages.Prompt | None:
        """What was kept of a request, if its time is not over."""

    def forget(self, namespace: str, name: str) -> None:
        """Delete everything of an endpoint."""


class PromptStore:
    """Prompts in files. Thread-safe."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()

    def add(self, namespace: str, name: str, prompts: Sequence[messages.Prompt]) -> None:
        """Keep them. Raises OSError."""
        if not prompts:
            return
        folder = self._folder / namespace / name
        path = folder / f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m-%dT%H}.jsonl"
        text = "".join(json.dumps(dataclasses.asdict(prompt)) + "\n" for prompt in prompts)
        with self._lock:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600), "a") as out:
                out.write(text)
            _bound(folder)

    def find(self, namespace: str, name: str, request: str, ttl_days: float) -> messages.Prompt | None:
        """See Prompts."""
        oldest = self._clock() - ttl_days * DAY_S
        needle = json.dumps(request).encode()
        for path in reversed(_files(self._folder / namespace / name)):
            for line in _lines(path):
                if needle not in line:
                    continue
                prompt = _prompt(line)
                if prompt is not None and prompt.id == request:
                    return prompt if prompt.at >= oldest else None
        return None

    def forget(self, namespace: str, name: str) -> None:
        """See Prompts."""
        with self._lock:
            folder = self._folder / namespace / name
            for path in _files(folder):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what else lies in it is no prompt of ours
                folder.rmdir()

    def sweep(self, days: Mapping[tuple[str, str], float]) -> None:
        """Delete the hours whose time is over; `days` has the time to live by (namespace, name) of every endpoint there is."""
        for folder in self._folder.glob("*/*"):
            endpoint = (folder.parent.name, folder.name)
            if endpoint not in days:
                self.forget(*endpoint)
                continue
            for path in _files(folder):
                begin = datetime.strptime(path.stem, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()
                if begin + HOUR_S + days[endpoint] * DAY_S <= self._clock():
                    path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("????-??-??T??.jsonl"))


def _bound(folder: Path) -> None:
    paths = _files(folder)
    left = sum(path.stat().st_size for path in paths)
    for path in paths[:-1]:
        if left <= ENDPOINT_BYTES:
            return
        left -= path.stat().st_size
        path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return  # its time was over just now


def _prompt(line: bytes) -> messages.Prompt | None:
    try:
        found = json.loads(line)
        known = {field.name for field in dataclasses.fields(messages.Prompt)}
        return messages.Prompt(**{name: value for name, value in found.items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return None  # the last line of a write that was cut off
