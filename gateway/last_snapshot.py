"""The last snapshot on disk, so that a gateway that starts while the manager is away can serve.

Holds key digests and engine secrets: readable by nobody else.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from cluster import snapshot

log = logging.getLogger(__name__)


def save(path: Path, now: snapshot.Snapshot) -> None:
    """Replaces the file as a whole."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(dataclasses.asdict(now)))
    fresh.replace(path)


def load(path: Path) -> snapshot.Snapshot | None:
    """What was saved last; None when there is nothing, or nothing that this version understands."""
    try:
        stored = json.loads(path.read_text())
        endpoints = {key: _endpoint(row) for key, row in stored["endpoints"].items()}
        keys = {digest: snapshot.Key(**row) for digest, row in stored["keys"].items()}
        return snapshot.Snapshot(stored["version"], endpoints, keys)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        log.warning("the last snapshot cannot be read and is not used")
        return None


def _endpoint(row: dict[str, Any]) -> snapshot.Endpoint:
    replicas = tuple(snapshot.Replica(**replica) for replica in row.pop("replicas"))
    return snapshot.Endpoint(**{**row, "networks": tuple(row["networks"])}, replicas=replicas)
