"""What the chosen files contain: pickles under another name, and configuration that asks to run a repository's own code.

Works on files that are already on this node; which files are looked at is `listing`'s choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deployments.sources.errors import SourceError
from deployments.sources.listing import Rules, pickle_refused

ZIP = b"PK\x03\x04"
"""What torch.save writes is a zip archive with a pickle in it."""
MAX_HEADER = 100_000_000
"""Bytes; the safetensors library refuses more as well."""


def inspect(folder: Path, paths: Iterable[str], rules: Rules) -> None:
    """Refuses what the rules do not allow. Raises SourceError: PickleRefused, RemoteCodeRefused, NoWeights."""
    for path in paths:
        head = _head(folder / path)
        named_safe = path.lower().endswith(".safetensors")
        if named_safe and is_safetensors(head, (folder / path).stat().st_size):
            continue
        if is_pickle(head) and not rules.allow_pickle:
            raise pickle_refused(path)
        if named_safe:
            raise SourceError(f"{path} is not a safetensors file: its header is damaged or missing", "NoWeights")
        if path.endswith(".json") and not rules.trust_remote_code and asks_for_code((folder / path).read_bytes()):
            raise remote_code_refused(f"{path} has auto_map")


def remote_code_refused(what: str) -> SourceError:
    """The refusal of a model that brings Python code to run."""
    return SourceError(
        f"the model brings its own Python code ({what}): set model.settings.llm.trustRemoteCode if you trust it",
        "RemoteCodeRefused",
    )


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a pickle (protocol 2 or later), or a zip archive as torch writes."""
    return head.startswith(ZIP) or (len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5)


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes begins like safetensors: the length of a JSON header that fits in it, and the header."""
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(MAX_HEADER, size - 8)


def asks_for_code(content: bytes) -> bool:
    """Whether this JSON has an `auto_map` anywhere, however it is spelled.

    Malformed JSON asks for nothing: no engine can read it either.
    """
    if b"auto_map" not in content and b"\\u" not in content:
        return False
    try:
        return _has_auto_map(json.loads(content))
    except (ValueError, RecursionError):
        return False


def _has_auto_map(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if item.get("auto_map"):
                return True
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)
