"""What endpoints' requests came to since this manager started: answers by status, durations, tokens, and what replicas use.

In memory on purpose, and bounded: a manager that restarts counts from zero, which Prometheus expects of counters. Fed by gateways
(answers), by the meter (usage) and by replicas (hardware); `cluster.open_metrics` and `cluster.api.metrics` show it.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from cluster import messages
from cluster.board import GATEWAY_SILENT_S
from cluster.histograms import Histogram

MINUTE_S = 60
KEPT_MINUTES = 60
"""How far back percentiles can be asked for."""
REPLICAS_KEPT = 64
"""Replicas of an endpoint whose answers are counted apart; those that were silent longest are forgotten first."""
HARDWARE_SILENT_S = 20.0
"""A replica that has said nothing for so long uses nothing any more: it speaks every five seconds."""

Statuses = collections.Counter[int]


@dataclasses.dataclass
class Minute:
    """What came to an end within one minute, or (as a sum) within several."""

    statuses: Statuses = dataclasses.field(default_factory=collections.Counter)
    latency: Histogram = dataclasses.field(default_factory=Histogram)
    """From a request's first byte at the edge to its answer's last: what clients saw, waiting included."""
    engine: Histogram = dataclasses.field(default_factory=Histogram)
    """The part of it that the engine had it."""
    first_token: Histogram = dataclasses.field(default_factory=Histogram)
    """At the engine, until the first token."""
    tokens: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """prompt, completion, cached; and images."""

    def add(self, other: Minute) -> None:
        """Counts what was counted there."""
        self.statuses.update(other.statuses)
        self.tokens.update(other.tokens)
        for mine, theirs in ((self.latency, other.latency), (self.engine, other.engine), (self.first_token, other.first_token)):
            mine.merge(theirs.steps, theirs.total)


@dataclasses.dataclass(frozen=True)
class Totals:
    """An endpoint's counts since this manager started, and what goes on now. A copy: nobody changes it."""

    all: Minute
    replicas: Mapping[str, Statuses]
    """Replica id -> its answers by status; '' = the edge's own."""
    running: int = 0
    pending: int = 0
    """Requests that wait at the edge, for a place on a replica or for a replica."""
    at_replica: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Replica id -> requests that it is working on."""
    hardware: Mapping[str, messages.HardwareUse] = dataclasses.field(default_factory=dict)
    """Replica id -> what it uses."""


class _Service:
    """One endpoint's numbers."""

    def __init__(self) -> None:
        self.all = Minute()
        self.minutes: dict[int, Minute] = {}
        self.replicas: collections.OrderedDict[str, Statuses] = collections.OrderedDict()
        self.hardware: dict[str, messages.HardwareUse] = {}

    def at(self, now: float) -> Minute:
        """The minute that `now` lies in. Older ones than are kept go."""
        number = int(now // MINUTE_S)
        if number not in self.minutes:
            self.minutes = {known: minute for known, minute in self.minutes.items() if number - KEPT_MINUTES < known <= number}
        return self.minutes.setdefault(number, Minute())

    def of_replica(self, replica: str) -> Statuses:
        """Its answers; counted as the one heard of last."""
        found = self.replicas.setdefault(replica, collections.Counter())
        self.replicas.move_to_end(replica)
        while len(self.replicas) > REPLICAS_KEPT:
            self.replicas.pop(next(name for name in self.replicas if name))
        return found


class ServiceMetrics:
    """Thread-safe. Endpoints are named by their path, `namespace/name`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}
        self._gateways: dict[str, tuple[float, messages.Activity]] = {}

    def note(self, endpoint_path: str, replica_id: str, used: Sequence[messages.Usage]) -> None:  # noqa: ARG002 - a meter says who
        """What requests used of an engine. Each request once: telling them apart is the caller's."""
        with self._lock:
            service = self._service(endpoint_path)
            for minute in (service.all, service.at(self._clock())):
                for row in used:
                    _add_usage(minute, row)

    def note_activity(self, seen: messages.Activity) -> None:
        """What a gateway told: what was answered since its last report, and what runs now."""
        with self._lock:
            now = self._clock()
            self._gateways[seen.gateway] = (now, dataclasses.replace(seen, answers=()))
            for row in seen.answers:
                service = self._service(row.endpoint)
                service.of_replica(row.replica)[row.status] += row.count
                for minute in (service.all, service.at(now)):
                    minute.statuses[row.status] += row.count
                    minute.latency.merge(row.seconds, row.seconds_sum)

    def note_hardware(self, endpoint_path: str, replica_id: str, hardware: messages.HardwareUse) -> None:
        """What a replica uses of its node, by the manager's clock: nodes' clocks may differ."""
        with self._lock:
            now = self._clock()
            known = self._service(endpoint_path).hardware
            known[replica_id] = dataclasses.replace(hardware, at=now)
            for silent in [name for name, row in known.items() if now - row.at > HARDWARE_SILENT_S]:
                del known[silent]

    def keep(self, paths: Collection[str]) -> None:
        """Forgets the endpoints that are not among these. A namesake that is made later counts from zero."""
        with self._lock:
            for gone in self._services.keys() - set(paths):
                del self._services[gone]

    def totals(self, path: str) -> Totals:
        """Everything since this manager started."""
        with self._lock:
            now, service = self._clock(), self._services.get(path) or _Service()
            everything = Minute()
            everything.add(service.all)
            active, at_replica = self._running(path, now)
            working = min(active, sum(at_replica.values()))
            return Totals(
                all=everything,
                replicas={name: collections.Counter(statuses) for name, statuses in service.replicas.items()},
                running=working,
                pending=active - working,
                at_replica=at_replica,
                hardware={name: row for name, row in service.hardware.items() if now - row.at <= HARDWARE_SILENT_S},
            )

    def window(self, path: str, since: float) -> tuple[Minute, float]:
        """The sum of what was counted since then, in whole minutes, and the time at which it begins (Unix seconds)."""
        with self._lock:
            now = self._clock()
            first = max(int(since // MINUTE_S), int(now // MINUTE_S) - KEPT_MINUTES + 1)
            first = min(first, int(now // MINUTE_S))
            found = Minute()
            for number, minute in (self._services.get(path) or _Service()).minutes.items():
                if number >= first:
                    found.add(minute)
            return found, float(first * MINUTE_S)

    def _service(self, path: str) -> _Service:
        return self._services.setdefault(path, _Service())

    def _running(self, path: str, now: float) -> tuple[int, dict[str, int]]:
        """Requests that run, wait or are held, and those at each replica, of all gateways that are heard of."""
        active, at_replica = 0, collections.Counter[str]()
        for at, seen in self._gateways.values():
            if now - at < GATEWAY_SILENT_S:
                active += seen.active.get(path, 0)
                at_replica.update(seen.running.get(path, {}))
        return active, dict(at_replica)


def _add_usage(minute: Minute, row: messages.Usage) -> None:
    """A request that failed before it began, or was cut off before its first token, has no such time; nor has a websocket, whose
    times are its client's choice."""
    counted = {"prompt": row.prompt_tokens, "completion": row.completion_tokens, "cached": row.cached_tokens, "images": row.images}
    minute.tokens.update({kind: max(0, count) for kind, count in counted.items() if count})
    if row.status == messages.SWITCHED:
        return
    if row.outcome != "failed":
        minute.engine.add(row.total_s)
    if row.first_token_s > 0:
        minute.first_token.add(row.first_token_s)
