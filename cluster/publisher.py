"""Compiles rows, statuses and announced replicas into the Snapshot, and streams it and its deltas to the gateways."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from cluster import engine_kinds, expiry, granting, records, roles, routes, snapshot, state
from cluster.settings import Settings

News = snapshot.Snapshot | snapshot.Delta


def engine_secret(cluster_secret: bytes, endpoint_id: str) -> str:
    """What the edge sends to an endpoint's engines as X-Engine-Secret: another one for each endpoint."""
    return hmac.new(cluster_secret, f"engine:{endpoint_id}".encode(), hashlib.sha256).hexdigest()


def compile_endpoint(
    endpoint: records.Endpoint,
    status: state.Status,
    replicas: Iterable[records.Replica],
    settings: Settings,
    cluster_secret: bytes,
    member_of: Mapping[str, str] | None = None,
    tenant: str = "",
) -> snapshot.Endpoint:
    """One endpoint as the edge needs it. Replicas of the serving revision get traffic, others finish what they have.

    `member_of` tells the member of each replica id, for endpoints that have members. `tenant` is that of its namespace.
    """
    spec = endpoint.parsed
    scaling = spec.compute.scaling
    own_routes = spec.model.image.variant in engine_kinds.PROGRAM_VARIANTS
    private = tuple(network.strip() for network in settings.private_networks.split(",") if network.strip())
    live = (
        ()
        if endpoint.desired == "paused"
        else tuple(_replica(row, endpoint, member_of or {}) for row in sorted(replicas, key=lambda row: row.id))
    )
    max_queue = settings.max_queue if scaling.max_queue is None else scaling.max_queue
    return snapshot.Endpoint(
        id=endpoint.id,
        namespace=endpoint.namespace,
        name=endpoint.name,
        state=status.state,
        reason=status.reason,
        message=status.message,
        type=spec.type,
        networks=allowed_networks(private, spec.networks) if spec.type == snapshot.PRIVATE else (),
        engine_secret=engine_secret(cluster_secret, endpoint.id),
        default_route=spec.route.default
        or spec.model.env.get(routes.PREDICT_VARIABLE)
        or ("" if own_routes else default_route(engine_kinds.task(spec.model))),
        own_routes=own_routes,
        task=engine_kinds.task(spec.model) or "",
        max_concurrency=_most(live, max_queue),
        max_queue=max_queue,
        hold_timeout_s=settings.hold_timeout_s,
        load_seconds=endpoint.load_seconds or 60.0,
        created=int(endpoint.created_at),
        replicas=live,
        adapters=tuple(adapter.name for adapter in spec.model.adapters),
        members=tuple(
            snapshot.Member(member.name, member.task, spec.route.default or default_route(member.task)) for member in status.members
        ),
        tenant=tenant,
        shared_with=spec.shared_with,
        requests_per_minute=spec.limits.requests_per_minute,
        concurrency=spec.limits.concurrency,
    )


def allowed_networks(operators: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """The endpoint's networks so far as they lie in the operator's; where either says nothing, what the other says."""
    if not operators or not own:
        return tuple(own or operators)
    outer = [ipaddress.ip_network(text, strict=False) for text in operators]
    inner = [ipaddress.ip_network(text, strict=False) for text in own]
    both = [(one, other) for one in inner for other in outer if one.version == other.version and one.overlaps(other)]
    narrower = [max(pair, key=lambda network: network.prefixlen) for pair in both]
    # No network at all would read as any: 255.255.255.255 is nobody's address.
    return tuple(dict.fromkeys(map(str, narrower))) or ("255.255.255.255/32",)


def _most(replicas: Iterable[snapshot.Replica], max_queue: int) -> int:
    """Requests that may run and wait at once, so that under overload the rest is told at once; 0 = any number."""
    takes = [replica.max_concurrency for replica in replicas if not replica.draining]
    return sum(takes) + max_queue if takes and min(takes) > 0 else 0


def default_route(task: str | None) -> str:
    """Where POST .../predict goes when the endpoint does not say."""
    of_task = {
        "feature-extraction": "/v1/embeddings",
        "sentence-similarity": "/v1/embeddings",
        "sentence-embeddings": "/v1/embeddings",
        "text-ranking": "/v1/rerank",
        "text-to-image": "/v1/images/generations",
        "text-classification": "/v1/classify",
        "automatic-speech-recognition": "/v1/audio/transcriptions",
    }
    return of_task.get(task or "", "/v1/completions")


def compile_keys(
    keys: Iterable[records.Key], paths: Mapping[str, str], people: granting.Membership, now: float = 0.0
) -> dict[str, snapshot.Key]:
    """Keys that are usable at `now`, by digest. `paths` tells each endpoint id's ns/name.

    Keys of endpoints that are gone, and platform keys whose user is gone or not active, are left out.
    """
    found: dict[str, snapshot.Key] = {}
    for row in keys:
        user = people.users.get(row.owner)
        if expiry.status(row, now) != "active" or (row.endpoint_id is None and not (user and user.active)):
            continue
        if row.endpoint_id is None or row.endpoint_id in paths:
            found[row.digest] = _key(row, paths.get(row.endpoint_id or "", ""), people, user if row.endpoint_id is None else None)
    return found


def _key(row: records.Key, path: str, people: granting.Membership, user: records.User | None) -> snapshot.Key:
    """`user` is whom a platform key acts for. An operator calls what its own tenant may, like everybody there."""
    return snapshot.Key(
        id=row.id,
        kind=row.kind,
        namespace=user.namespace if user else row.namespace,
        endpoint=path,
        requests_per_minute=row.requests_per_minute,
        concurrency=row.concurrency,
        tenant=user.tenant if user else people.tenant_of(row.namespace),
        role=roles.lesser(user.role, row.role) if user else "",
        scope=granting.scope(user) if user else "",
        expires_at=row.expires_at or 0.0,
    )


def _replica(row: records.Replica, endpoint: records.Endpoint, member_of: Mapping[str, str]) -> snapshot.Replica:
    serving = endpoint.serving == row.revision and endpoint.awake
    member = member_of.get(row.id, "")
    return snapshot.Replica(row.id, row.revision, row.host, row.port, row.max_concurrency, draining=not serving, member=member)


class Publisher:
    """Holds the current Snapshot and hands out its changes. `publish` may be called from any thread."""

    def __init__(self, first_version: int) -> None:
        """`first_version` must be higher than any that an earlier manager published: the start time in milliseconds serves."""
        self._lock = threading.Lock()
        self._version = first_version
        self._current: snapshot.Snapshot | None = None
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[News]]] = set()

    def publish(
        self,
        endpoints: Mapping[str, snapshot.Endpoint | None],
        keys: Mapping[str, snapshot.Key | None],
        grants: Mapping[str, tuple[str, ...] | None] | None = None,
        blocks: Mapping[str, snapshot.Block | None] | None = None,
        gateways: tuple[str, ...] = (),
    ) -> bool:
        """Make the current snapshot with these changes (None = removed) the current one and tell the watchers.

        `gateways` are all there are, () = not known now: then those of before stay.
        False when there are no changes. The first call makes the first snapshot, an empty one too.
        """
        with self._lock:
            old = self._current
            others = None if not gateways or (old is not None and gateways == old.gateways) else gateways
            delta = snapshot.Delta(self._version, self._version + 1, endpoints, keys, grants or {}, blocks or {}, others)
            if old is not None and delta.empty:
                return False
            new = snapshot.apply(old or snapshot.Snapshot(self._version), delta)
            for loop, queue in self._watchers:
                loop.call_soon_threadsafe(queue.put_nowait, new if old is None else delta)
            self._version += 1
            self._current = new
            return True

    @property
    def version(self) -> int:
        """Of the current snapshot."""
        with self._lock:
            return self._version

    async def watch(self) -> AsyncIterator[News]:
        """The whole Snapshot as soon as there is one, then every Delta. Ends only when the caller closes it."""
        queue: asyncio.Queue[News] = asyncio.Queue()
        me = (asyncio.get_running_loop(), queue)
        with self._lock:
            self._watchers.add(me)
            first = self._current
        try:
            if first is not None:
                yield first
            while True:
                yield await queue.get()
        finally:
            with self._lock:
                self._watchers.discard(me)
