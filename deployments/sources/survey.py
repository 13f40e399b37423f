"""Looks at a model where it lies and brings nothing: its listing, its small files, and the headers of its safetensors files."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.model_facts import Facts
from deployments.sources import listing, local
from deployments.sources.errors import SourceError
from deployments.sources.inspection import MAX_HEADER, is_safetensors
from deployments.sources.listing import File, Listing, Rules
from deployments.sources.source import Content, Source

SMALL = 4 * 1024**2
"""Bytes of a JSON file that is read whole."""
HEADER_GUESS = 128 * 1024
"""Bytes that the header of a safetensors file commonly has at most: one request then."""
HEADERS_AT_MOST = 96
"""Safetensors files of which the headers are read; a model of more is judged by the size of its files."""
PARALLEL = 8
POOLING = "1_Pooling/config.json"


class Folder:
    """A folder of this node as a Source."""

    def __init__(self, path: str, allowed: Sequence[Path]) -> None:
        self._folder, self._files = local.find(path, allowed)

    def list(self) -> Listing:
        """Its files."""
        return Listing("", self._files)

    def describe(self, file: File) -> File:
        """As it is."""
        return file

    @contextlib.contextmanager
    def read(self, file: File, start: int, stop: int) -> Iterator[Content]:
        """From the disk."""
        with (self._folder / file.path).open("rb") as content:
            content.seek(start)
            yield Content(start, iter((content.read(stop - start),)))


def survey(source: Source, repository: str, revision: str | None, rules: Rules) -> Facts:
    """What the source tells. Raises SourceError when it cannot be listed; what would be refused later is told in the facts."""
    found = source.list()
    by_path = {file.path: file for file in found.files}
    problem = message = ""
    try:
        chosen: Sequence[File] = listing.choose(found.files, rules)
    except SourceError as error:
        chosen, problem, message = [file for file in found.files if "/" not in file.path], error.reason, str(error)
    weights = [file for file in chosen if file.path.endswith(".safetensors") or listing.is_pickle_name(file.path)]
    config = _json(source, by_path.get("config.json"))
    return Facts(
        repository=repository,
        revision=revision,
        version=found.version,
        config=config,
        weight_bytes=sum(file.size for file in weights),
        weight_files=len(weights),
        tensors=_tensors(source, weights),
        task=found.task,
        sentence_transformer=POOLING in by_path or any(_is_pooling(path) for path in by_path),
        pipeline="model_index.json" in by_path,
        deployment_config=_json(source, by_path.get("config/deployment_config.json")),
        problem=problem,
        message=message,
    )


def _is_pooling(path: str) -> bool:
    folder, _, name = path.partition("/")
    return name == "config.json" and folder.partition("_")[2] == "Pooling"


def _json(source: Source, file: File | None) -> Mapping[str, Any]:
    """The object in a small JSON file; empty when there is none that can be read."""
    if file is None or not 0 < file.size <= SMALL:
        return {}
    try:
        found = json.loads(_bytes(source, file, 0, file.size))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensors(source: Source, weights: Sequence[File]) -> Mapping[str, int]:
    """Numbers by type; empty unless every header could be read: half of a count would mislead."""
    safe = [file for file in weights if PurePosixPath(file.path).suffix == ".safetensors"]
    if not safe or len(safe) != len(weights) or len(safe) > HEADERS_AT_MOST:
        return {}
    counted: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(PARALLEL, "model-survey") as pool:
        try:
            for header in pool.map(lambda file: _header(source, file), safe):
                for name, row in header.items():
                    if name != "__metadata__":
                        counted[row["dtype"]] = counted.get(row["dtype"], 0) + _product(row["shape"])
        except (SourceError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
    return counted


def _header(source: Source, file: File) -> dict[str, Any]:
    head = _bytes(source, file, 0, min(file.size, HEADER_GUESS))
    if not is_safetensors(head[:16], file.size):
        raise ValueError("no safetensors header")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER // 4:
        raise ValueError("a header of that size is not read ahead")
    if len(head) < 8 + length:
        head += _bytes(source, file, len(head), 8 + length)
    found: dict[str, Any] = json.loads(head[8 : 8 + length])
    return found


def _bytes(source: Source, file: File, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of the file. Raises ValueError when fewer come."""
    found = bytearray()
    with source.read(file, start, stop) as content:
        for chunk in content.chunks:
            found += chunk
            if len(found) >= stop - content.start:
                break
    kept = bytes(found[start - content.start : stop - content.start])
    if len(kept) < stop - start:
        raise ValueError("the source sent less than it lists")
    return kept


def _product(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count
