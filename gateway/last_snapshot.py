"""The last snapshot on disk, so that a gateway that starts while the manager is away can serve.

A file of JSON lines: the whole in parts, then each change as it came; written anew when many have gathered. A change of one key
among a hundred thousand costs one line. Holds key digests and engine secrets: readable by nobody else.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from cluster import snapshot

log = logging.getLogger(__name__)
T = TypeVar("T")

REWRITE_AFTER = 2000
"""Changes in the file."""
PART = 500
"""Rows of a line: other threads get their turn between two lines."""
ENDPOINT = tuple(field.name for field in dataclasses.fields(snapshot.Endpoint))
REPLICA = tuple(field.name for field in dataclasses.fields(snapshot.Replica))
KEY = tuple(field.name for field in dataclasses.fields(snapshot.Key))


class LastSnapshot:
    """One file; one writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changes: int | None = None
        """Lines since the file was written whole; None while what it holds is not known."""

    def save(self, now: snapshot.Snapshot, deltas: Sequence[snapshot.Delta] | None) -> None:
        """The file holds `now`; `deltas` lead there from what was saved last, None = not known. Raises OSError."""
        if self._changes is None or deltas is None or self._changes + len(deltas) > REWRITE_AFTER:
            self._changes = None
            fresh = self._path.with_suffix(".new")
            fresh.touch(mode=0o600)
            with fresh.open("w") as file:
                file.writelines(_lines(snapshot.diff(snapshot.Snapshot(), now), whole=True))
            fresh.replace(self._path)
            self._changes = 0
            return
        try:
            with self._path.open("a") as file:
                for delta in deltas:
                    file.writelines(_lines(delta))
        except OSError:
            self._changes = None  # a line may have been cut off
            raise
        self._changes += len(deltas)


def load(path: Path) -> snapshot.Snapshot | None:
    """What was saved last; None when there is nothing, or nothing that this version understands."""
    endpoints: dict[str, snapshot.Endpoint] = {}
    keys: dict[str, snapshot.Key] = {}
    grants: dict[str, tuple[str, ...]] = {}
    blocks: dict[str, snapshot.Block] = {}
    gateways: tuple[str, ...] = ()
    version: int | None = None
    try:
        with path.open() as file:
            for line in file:
                if not line.endswith("\n"):
                    break  # cut off while it was written
                row = json.loads(line)
                if row["base"] not in (0, version):
                    break
                _put(endpoints, row["endpoints"], _endpoint)
                _put(keys, row["keys"], _key)
                _put(grants, row.get("grants", {}), tuple)
                _put(blocks, row.get("blocks", {}), lambda fields: snapshot.Block(**fields))
                gateways = tuple(row["gateways"]) if row.get("gateways") is not None else gateways
                version = row["version"] if row["last"] else version
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("the last snapshot cannot be read and is not used")
        return None
    return None if version is None else snapshot.Snapshot(version, endpoints, keys, grants, blocks, gateways)


def _lines(delta: snapshot.Delta, *, whole: bool = False) -> Iterator[str]:
    """A change is one line, so that it is there as a whole or not at all; the whole is there when its last line is."""
    tables: dict[str, Mapping[str, Any]] = {name: getattr(delta, name) for name in ROWS}
    parts: list[dict[str, Any]] = [tables]
    if whole:
        parts = [{name: dict(part)} for name, rows in tables.items() for part in _parts(rows.items(), PART)] or [{}]
    for number, part in enumerate(parts, 1):
        rows = {name: {key: None if row is None else ROWS[name](row) for key, row in part.get(name, {}).items()} for name in ROWS}
        line = {"base": 0 if whole else delta.base, "version": delta.version, "last": number == len(parts), **rows}
        line["gateways"] = delta.gateways
        yield json.dumps(line, separators=(",", ":")) + "\n"


def _parts(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(rows)
    while part := list(islice(remaining, size)):
        yield part


def _endpoint_row(row: snapshot.Endpoint) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ENDPOINT} | {
        "replicas": [{name: getattr(one, name) for name in REPLICA} for one in row.replicas],
        "members": [dataclasses.asdict(member) for member in row.members],
    }


def _endpoint(row: dict[str, Any]) -> snapshot.Endpoint:
    replicas = tuple(snapshot.Replica(**replica) for replica in row.pop("replicas"))
    members = tuple(snapshot.Member(**member) for member in row.pop("members", ()))
    lists = {name: tuple(row.get(name, ())) for name in ("networks", "adapters", "shared_with")}
    return snapshot.Endpoint(**{**row, **lists}, replicas=replicas, members=members)


def _key_row(row: snapshot.Key) -> list[Any]:
    return [getattr(row, name) for name in KEY]


def _key(row: list[Any]) -> snapshot.Key:
    return snapshot.Key(**dict(zip(KEY, row, strict=True)))


def _put(rows: dict[str, T], changes: dict[str, Any], make: Any) -> None:
    for name, row in changes.items():
        if row is None:
            rows.pop(name, None)
        else:
            rows[name] = make(row)


ROWS: Mapping[str, Callable[[Any], Any]] = {"endpoints": _endpoint_row, "keys": _key_row, "grants": list, "blocks": dataclasses.asdict}
"""The tables of a snapshot, and how a row of each is written."""
