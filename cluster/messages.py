"""What replicas and gateways tell the manager, and what they get back: one typed message per hop.

These travel as arguments of Serve handle calls to the manager (`Manager.register`, `.report`, `.announce`, ...).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

CRASHED = "EngineCrashed"
"""Reason of a failed phase whose engine ended by itself after it had been ready."""


@dataclasses.dataclass(frozen=True)
class ReplicaIdentity:
    """Which replica speaks. `id` is Serve's unique replica id; `node` the Ray node id in hexadecimal."""

    application: str
    id: str
    node: str = ""
    host: str = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """The manager's answer to `register`: what may not lie in Serve's metadata."""

    engine_secret: str = dataclasses.field(repr=False)
    """Value of the X-Engine-Secret header that the edge will send."""
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Secret environment of the endpoint (HF_TOKEN, AWS_..., the user's own)."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A step in a replica's life.

    `name`: downloading, starting, importing, loading, compiling, warming, smoke_test, ready, sleeping, awake, draining, failed.
    `at` is in Unix seconds.
    `reason` is a CamelCase slug on failure (GatedRepository, DiskFull, ...), `permanent` = trying again cannot help.
    `data` holds numbers worth showing: {"bytes": n, "total": n}; when ready {"seconds": s}, the seconds of each phase
    and {"measured": {...}}, what the engine said of its memory.
    """

    name: str
    at: float
    message: str = ""
    reason: str = ""
    permanent: bool = False
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Announcement:
    """The server of this replica is ready at host:port for `max_concurrency` requests at once; `routes` are those it has."""

    replica: ReplicaIdentity
    host: str
    port: int
    max_concurrency: int
    capabilities: tuple[str, ...] = ()
    """Tasks the engine supports: generate, embed, score, classify, ..."""
    load_seconds: float = 0.0
    asleep: bool = False
    """Its engine sleeps; the next request wakes it."""


@dataclasses.dataclass(frozen=True)
class LogLine:
    """One line of a server's output. `level` is debug, info, warning or error; `at` Unix seconds."""

    at: float
    level: str
    text: str


@dataclasses.dataclass(frozen=True)
class Activity:
    """What a gateway saw since its last report.

    `requests`: ns/name -> (finished requests, Unix seconds of the last one). `active`: ns/name -> requests running,
    waiting or held now. `keys_used`: key id -> Unix seconds of its last accepted use.
    """

    gateway: str
    at: float
    requests: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    active: Mapping[str, int] = dataclasses.field(default_factory=dict)
    keys_used: Mapping[str, float] = dataclasses.field(default_factory=dict)
    version: int = 0
    """Of the snapshot that this gateway's HAProxy holds."""
