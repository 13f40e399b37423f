"""Hardware that was held for endpoints: replica-seconds and their cost, added up between the reconciler's looks at the cluster.

Kept in memory for FLUSH_S at most and stored together with the instant up to which it is accounted for: after a restart the
time since that instant is added once, for what has run all along.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cluster import errors, instance_types, observation, plan, prices, reading, records, state, windows
from cluster import spec as specs
from cluster.store.base import Store
from cluster.usage_records import CapacityDay

FLUSH_S = 5.0
PRUNE_EVERY_S, PRUNED_AT_ONCE = 60.0, 10_000
NEW_S = 2.0
"""Of a replica that was not there at the last look, however long ago that was, so much is counted at most."""
CLOCK_ERROR_S = 3600.0
"""A stored instant that lies further ahead than this was written by a wrong clock."""
REMEMBERED = 10_000
"""Revisions whose fields are kept at hand."""

Place = tuple[str, str, int, str, str]
"""Namespace, endpoint, revision, instance type and size."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A replica that holds hardware. `ready`: it can serve, or finishes what it has."""

    id: str
    ready: bool
    rate: prices.Rate


@dataclasses.dataclass(frozen=True)
class Part:
    """A deployment of a revision: all of it, or one member. `committed` replicas are paid for whether they are up or not."""

    revision: int
    member: str
    claims: tuple[Claim, ...]
    rate: prices.Rate
    committed: int = 0


@dataclasses.dataclass(frozen=True)
class Held:
    """What one endpoint holds at one look."""

    namespace: str
    endpoint: str
    parts: tuple[Part, ...]


def charges(held: Held, seconds: Mapping[str, float], span: float) -> Iterator[tuple[Place, dict[str, float]]]:
    """What is added for a span of time. `seconds` of each replica id are those of the span in which it was there. Pure.

    Hourly: every replica by its time. Committed: the committed number for the whole span, and by the hour what is over it.
    """
    for part in held.parts:
        times = sorted(((seconds[claim.id], claim) for claim in part.claims), key=lambda pair: (-pair[0], pair[1].id))
        over = times[part.committed :]
        yield (
            (held.namespace, held.endpoint, part.revision, part.rate.instance_type, part.rate.instance_size),
            {
                "accelerator_s": sum(time * claim.rate.accelerators for time, claim in times),
                "ready_s": sum(time for time, claim in times if claim.ready),
                "starting_s": sum(time for time, claim in times if not claim.ready),
                "hourly_cost": sum(claim.rate.cost(time) for time, claim in over),
                "committed_cost": part.rate.cost(span * part.committed),
            },
        )


class Accounts:
    """For the reconciler's thread alone."""

    def __init__(
        self,
        store: Store,
        types: Callable[[], instance_types.Catalogue],
        keep_days: float = 35.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keep_days`: how long single requests are kept in the store."""
        self._store = store
        self._types = types
        self._keep_s = keep_days * windows.DAY_S
        self._clock = clock
        self._begun = False
        self._was = 0.0
        """Until when the store has it."""
        self._until = 0.0
        """Until when it is in `_sums` too."""
        self._sums: dict[tuple[str, Place], dict[str, float]] = {}
        self._seen = self._announced()
        self._fields: dict[tuple[str, str, int], Mapping[str, Any]] = {}
        """Of revisions that run; of deleted ones until they have drained."""
        self._ready: dict[str, tuple[Place, list[prices.Rate]]] = {}
        """Endpoint's path -> its serving revision, and what each ready replica of it costs, at the last look."""
        self._pruned_at = 0.0

    def look(self, rows: reading.Reading, observed: observation.Cluster) -> None:
        """Add the time since the last look to what is seen now. Raises Unavailable when the database does not answer."""
        now = self._clock()
        if not self._begun:
            self._begin(now)
        held = list(self._held(rows, observed))
        span = max(0.0, now - self._until)
        claims = [claim for one in held for part in one.parts for claim in part.claims]
        seconds = {claim.id: span if claim.id in self._seen else min(span, NEW_S) for claim in claims}
        for one in held:
            for place, amounts in charges(one, seconds, span):
                self._add(place, self._until, now, amounts)
        self._seen = frozenset(seconds)
        self._until = max(now, self._until)
        if now - self._was >= FLUSH_S:
            self.flush()
        if now - self._pruned_at >= PRUNE_EVERY_S and self._store.prune_usage(now - self._keep_s, PRUNED_AT_ONCE) < PRUNED_AT_ONCE:
            self._pruned_at = now

    def slept(self, endpoint: records.Endpoint, idle_s: float) -> None:
        """The endpoint goes to zero after having been idle for so long."""
        if endpoint.path not in self._ready:
            return
        place, rates = self._ready[endpoint.path]
        amounts = {"zeros": 1, "zero_wait_s": idle_s * len(rates), "zero_wait_cost": sum(rate.cost(idle_s) for rate in rates)}
        self._put((windows.day(self._clock()), place), amounts)

    def flush(self) -> None:
        """Store what was added up."""
        rows = [CapacityDay(day, *place, **amounts) for (day, place), amounts in self._sums.items() if any(amounts.values())]  # type: ignore[arg-type]
        if not self._store.add_capacity(rows, self._was, self._until):
            # Another manager has accounted for this time: go on where it stands.
            self._begin(self._clock())
            return
        self._sums = {}
        self._was = self._until

    def _begin(self, now: float) -> None:
        """Go on from the stored instant."""
        stored = self._store.accounted_until()
        self._begun = True
        self._sums = {}
        self._was, self._until = stored, stored if 0 < stored < now + CLOCK_ERROR_S else now

    def _announced(self) -> frozenset[str]:
        """Replicas that an earlier manager was told of: those that still run have run since. Before any announces itself to this one."""
        with contextlib.suppress(errors.Unavailable):
            return frozenset(row.id for row in self._store.replicas())
        return frozenset()

    def _add(self, place: Place, since: float, until: float, amounts: Mapping[str, float]) -> None:
        """Divided among the days of the span."""
        for day, part in windows.split(since, until):
            share = part / (until - since)
            self._put((day, place), {name: amount * share for name, amount in amounts.items()})

    def _put(self, where: tuple[str, Place], amounts: Mapping[str, float]) -> None:
        sums = self._sums.setdefault(where, {})
        for name, amount in amounts.items():
            sums[name] = sums.get(name, 0) + amount

    # What is held

    def _held(self, rows: reading.Reading, observed: observation.Cluster) -> Iterator[Held]:
        self._ready = {}
        if len(self._fields) > REMEMBERED:
            self._fields.clear()
        catalogue = self._types()
        left = dict(observed.applications)
        for item in rows.wanted.values():
            endpoint = item.endpoint
            committed = endpoint.spec.get("compute", {}).get("plan") == "committed"
            if not committed and (not endpoint.awake or endpoint.desired == "paused"):
                continue  # what still drains is among the others
            names = {state.application_of(endpoint, number): number for number in _numbers(endpoint)}
            seen = {number: left.pop(name) for name, number in names.items() if name in left}
            if seen or committed:
                yield self._of_endpoint(item, seen, rows, catalogue)
        yield from self._others(left, rows, catalogue)

    def _of_endpoint(
        self,
        item: plan.Wanted,
        seen: Mapping[int, observation.Application],
        rows: reading.Reading,
        catalogue: instance_types.Catalogue,
    ) -> Held:
        endpoint = item.endpoint
        first = endpoint.serving if endpoint.serving is not None and endpoint.serving in item.revisions else endpoint.target
        parts: list[Part] = []
        for number in sorted({*seen, first}, key=lambda number: (number != first, number)):
            revision = item.revisions.get(number)
            fields = revision.fields if revision else {}
            self._fields[endpoint.namespace, endpoint.name, number] = fields
            promised = _promised(endpoint, fields) if number == first else {}
            parts += _parts(number, fields, seen.get(number), promised, rows, catalogue)
        ready = [claim for part in parts if part.revision == first for claim in part.claims if claim.ready]
        if ready:
            rate = ready[0].rate
            place = (endpoint.namespace, endpoint.name, first, rate.instance_type, rate.instance_size)
            self._ready[endpoint.path] = (place, [claim.rate for claim in ready])
        return Held(endpoint.namespace, endpoint.name, tuple(parts))

    def _others(
        self, left: Mapping[str, observation.Application], rows: reading.Reading, catalogue: instance_types.Catalogue
    ) -> Iterator[Held]:
        """Applications of older revisions and of deleted endpoints, which hold hardware until they have drained."""
        for name, application in left.items():
            parsed = specs.parse_application_name(name)
            if parsed is None:
                continue
            fields = self._fields.get(parsed)
            if fields is None:
                found = self._store.instance_of(*parsed)
                fields = {"compute": {"instanceType": found[0], "instanceSize": found[1]}} if found else {}
                self._fields[parsed] = fields
            yield Held(parsed[0], parsed[1], tuple(_parts(parsed[2], fields, application, {}, rows, catalogue)))


def _numbers(endpoint: records.Endpoint) -> set[int]:
    return {endpoint.target, endpoint.serving or endpoint.target}


def _promised(endpoint: records.Endpoint, fields: Mapping[str, Any]) -> dict[str, int]:
    """Committed replicas by member ('' = it has none); {} of an hourly plan."""
    compute = endpoint.spec.get("compute", {})
    if compute.get("plan") != "committed":
        return {}
    least = max(1, int(compute.get("scaling", {}).get("minReplica", 1)))
    own = {member["name"]: member.get("scaling") or {} for member in endpoint.spec.get("model", {}).get("members", ())}
    names = [member["name"] for member in fields.get("model", {}).get("members", ())] or [""]
    return {name: int(own.get(name, {}).get("minReplica") or least) for name in names}


def _parts(
    number: int,
    fields: Mapping[str, Any],
    seen: observation.Application | None,
    promised: Mapping[str, int],
    rows: reading.Reading,
    catalogue: instance_types.Catalogue,
) -> Iterator[Part]:
    announced = {row.id for row in rows.replicas.get(seen.name, ())} if seen else set()
    placed = [replica for replica in (seen.replicas if seen else ()) if replica.node is not None and not replica.waiting]
    for member in sorted({*promised, *(replica.member for replica in placed)}):
        rate = prices.of_revision(fields, member, catalogue)
        mine = [replica for replica in placed if replica.member == member]
        claims = tuple(Claim(replica.id, _is_ready(replica, announced), rate) for replica in mine)
        yield Part(number, member, claims, rate, promised.get(member, 0))


def _is_ready(replica: observation.Replica, announced: Collection[str]) -> bool:
    return replica.state == "stopping" or (replica.state == "running" and replica.id in announced)
