"""What the edge needs to know, compiled by the manager: one immutable, versioned Snapshot, and the deltas between two.

A gateway's `watch` gets a whole Snapshot first and Deltas after it; `apply` turns the one into the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

PUBLIC, AUTHENTICATED, PRIVATE = "public", "authenticated", "private"


@dataclasses.dataclass(frozen=True, slots=True)
class Replica:
    """One ready engine server. `id` is Serve's replica id; `draining` ones finish what they have and get nothing new."""

    id: str
    revision: int
    host: str
    port: int
    max_concurrency: int
    weight: int = 100
    draining: bool = False
    member: str = ""
    """Which of the endpoint's members it serves; '' = it has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One of several models of an endpoint."""

    name: str
    task: str = ""
    default_route: str = "/v1/chat/completions"


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as the edge sees it. `state` is one of Hugging Face's eight words, `reason` a CamelCase slug or ''."""

    id: str
    namespace: str
    name: str
    state: str
    reason: str = ""
    message: str = ""
    type: str = AUTHENTICATED
    networks: tuple[str, ...] = ()
    """CIDRs from which a private endpoint may be called; empty = any network of the owning namespace's keys."""
    engine_secret: str = dataclasses.field(default="", repr=False)
    """Sent to the engine as X-Engine-Secret by the edge, and by nobody else."""
    default_route: str = "/v1/chat/completions"
    own_routes: bool = False
    """Every path below its URL is the engine's own: it is a server of the user's. Then '' as `default_route` leaves /predict as it is."""
    task: str = ""
    max_concurrency: int = 0
    """Requests that may be running and waiting on this endpoint's replicas at once; 0 = no limit."""
    max_queue: int = 100
    """Requests that one gateway may hold while there is no ready replica."""
    hold_timeout_s: float = 300.0
    load_seconds: float = 60.0
    """Learned time from wake to ready: what Retry-After is made from."""
    created: int = 0
    """Unix seconds; `created` in /v1/models."""
    replicas: tuple[Replica, ...] = ()
    adapters: tuple[str, ...] = ()
    """Names that `name:adapter` may have behind the colon."""
    members: tuple[Member, ...] = ()
    """Of the serving revision, the primary one first; () for an endpoint of one model."""
    tenant: str = ""
    """Whose namespace it lies in."""
    shared_with: tuple[str, ...] = ()
    """Tenants whose keys may call it too; `*` = all."""
    requests_per_minute: int = 0
    concurrency: int = 0
    """The endpoint's own limits, over all keys; 0 = none."""

    @property
    def path(self) -> str:
        """`namespace/name`, the endpoint's key in the snapshot."""
        return f"{self.namespace}/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One usable API key: no revoked or expired one. `kind` as in cluster.keys; an endpoint key names its `endpoint` (ns/name)."""

    id: str
    kind: str
    namespace: str
    endpoint: str = ""
    requests_per_minute: int = 0
    concurrency: int = 0
    """Limits; 0 = none."""
    tenant: str = ""
    role: str = ""
    """What a platform key may do (`cluster.roles`): a viewer's calls nothing but public endpoints. '' for an endpoint key."""
    scope: str = ""
    """The entry of `Snapshot.grants` that tells which namespaces beside its own a platform key may call in."""
    expires_at: float = 0.0
    """Unix seconds from which it is refused, with or without a manager; 0 = never."""


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A key or an endpoint has used up a limit that is counted in tokens or money."""

    code: str
    """`token_limit` or `budget_exceeded`."""
    limit: str
    """The field of `cluster.limits.Limits` in the form that users write: `tokensPerMinute`, ..."""
    most: float = 0.0
    """The limit's value."""
    until: float = 0.0
    """Unix seconds; 0 = until the limit is changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one version. `endpoints` by ns/name, `keys` by SHA-256 digest of the key.

    `grants`: `t:<tenant>` or `u:<user>` -> namespaces; `blocks`: `k:<key id>` or `e:<ns/name>` -> what is used up.
    `gateways`: names of those that live, each of which enforces its part of every limit; () = nothing is known of others.
    """

    version: int = 0
    endpoints: Mapping[str, Endpoint] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, Key] = dataclasses.field(default_factory=dict)
    grants: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    blocks: Mapping[str, Block] = dataclasses.field(default_factory=dict)
    gateways: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """What changed from version `base` to `version`; a value of None means removed. `gateways` None = the same as before."""

    base: int
    version: int
    endpoints: Mapping[str, Endpoint | None] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, Key | None] = dataclasses.field(default_factory=dict)
    grants: Mapping[str, tuple[str, ...] | None] = dataclasses.field(default_factory=dict)
    blocks: Mapping[str, Block | None] = dataclasses.field(default_factory=dict)
    gateways: tuple[str, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.endpoints or self.keys or self.grants or self.blocks) and self.gateways is None


def diff(old: Snapshot, new: Snapshot) -> Delta:
    """The Delta that `apply` turns `old` into `new` with."""
    return Delta(
        old.version,
        new.version,
        _changes(old.endpoints, new.endpoints),
        _changes(old.keys, new.keys),
        _changes(old.grants, new.grants),
        _changes(old.blocks, new.blocks),
        None if old.gateways == new.gateways else new.gateways,
    )


def apply(old: Snapshot, delta: Delta) -> Snapshot:
    """The snapshot after `delta`. Raises ValueError when the delta does not start at `old`'s version."""
    if delta.base != old.version:
        raise ValueError(f"delta from version {delta.base} cannot follow version {old.version}")
    return Snapshot(
        delta.version,
        _merged(old.endpoints, delta.endpoints),
        _merged(old.keys, delta.keys),
        _merged(old.grants, delta.grants),
        _merged(old.blocks, delta.blocks),
        old.gateways if delta.gateways is None else delta.gateways,
    )


def _changes(old: Mapping[str, T], new: Mapping[str, T]) -> dict[str, T | None]:
    changed: dict[str, T | None] = {name: row for name, row in new.items() if old.get(name) != row}
    changed.update({name: None for name in old if name not in new})
    return changed


def _merged(old: Mapping[str, T], changes: Mapping[str, T | None]) -> Mapping[str, T]:
    if not changes:
        return old  # the same object: what was made from it need not be made again
    merged = dict(old)
    for name, row in changes.items():
        if row is None:
            merged.pop(name, None)
        else:
            merged[name] = row
    return merged
