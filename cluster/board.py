"""What replicas and gateways have told since this manager started: phases and activity. Kept in memory on purpose.

Everything here can be lost without harm: replicas report again, and an endpoint's idle clock starts anew.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping

from cluster import messages

GATEWAY_SILENT_S = 15.0
"""After this long without a report, what a gateway said it has running no longer counts."""


@dataclasses.dataclass(frozen=True)
class Use:
    """When an endpoint was last used (Unix seconds), and how many requests run, wait or are held now."""

    last: float
    active: int


class Board:
    """Thread-safe."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._lock = threading.Lock()
        self._phases: dict[str, dict[str, messages.Phase]] = {}
        self._last_used: dict[str, float] = {}
        self._gateways: dict[str, messages.Activity] = {}
        self._began: dict[str, float] = {}
        self._asleep: dict[str, set[str]] = {}
        self._adapters: dict[str, dict[str, tuple[messages.AdapterState, ...]]] = {}

    def begin(self, application: str, at: float) -> None:
        """A new attempt at an application: what earlier replicas said of it no longer counts."""
        with self._lock:
            self._phases[application] = {}
            self._asleep.pop(application, None)
            self._adapters.pop(application, None)
            self._began[application] = at

    def end(self, application: str) -> None:
        """The application is being removed: drop what is known, and ignore what its replicas still say."""
        with self._lock:
            self._phases.pop(application, None)
            self._asleep.pop(application, None)
            self._adapters.pop(application, None)
            self._began.pop(application, None)

    def began(self, application: str) -> float | None:
        """When the present attempt began, None when this manager did not start it."""
        with self._lock:
            return self._began.get(application)

    def adopt(self, application: str) -> None:
        """An application that ran before this manager started: listen to its replicas."""
        with self._lock:
            self._phases.setdefault(application, {})

    def note_phase(self, replica: messages.ReplicaIdentity, phase: messages.Phase) -> messages.Phase | None:
        """Record a replica's phase; returns its previous one. Replicas of applications not (or no longer) wanted are ignored."""
        with self._lock:
            phases = self._phases.get(replica.application)
            if phases is None:
                return phase
            previous = phases.get(replica.id)
            phases[replica.id] = phase
            return previous

    def applications(self) -> frozenset[str]:
        """Those of which something was told."""
        with self._lock:
            return frozenset(name for name, phases in self._phases.items() if phases)

    def phases(self, application: str) -> dict[str, messages.Phase]:
        """Replica id -> its latest phase."""
        with self._lock:
            return dict(self._phases.get(application, {}))

    def note_asleep(self, replica: messages.ReplicaIdentity, asleep: bool) -> bool:
        """Record whether a ready replica's engine sleeps; True when that is news."""
        with self._lock:
            sleeping = self._asleep.setdefault(replica.application, set())
            known = replica.id in sleeping
            (sleeping.add if asleep else sleeping.discard)(replica.id)
            return known != asleep

    def asleep(self, application: str) -> frozenset[str]:
        """Ids of replicas whose engine sleeps."""
        with self._lock:
            return frozenset(self._asleep.get(application, ()))

    def note_adapters(self, replica: messages.ReplicaIdentity, states: tuple[messages.AdapterState, ...]) -> bool:
        """Record what became of the adapters in a replica; True when that is news."""
        with self._lock:
            known = self._adapters.setdefault(replica.application, {})
            news = known.get(replica.id, ()) != states
            known[replica.id] = states
            return news

    def adapters(self, application: str) -> dict[str, tuple[messages.AdapterState, ...]]:
        """Replica id -> what it said of its adapters."""
        with self._lock:
            return dict(self._adapters.get(application, {}))

    def note_activity(self, activity: messages.Activity) -> None:
        """What one gateway saw since its last report."""
        with self._lock:
            self._gateways[activity.gateway] = activity
            for path, (_, last) in activity.requests.items():
                self._touch(path, last)
            for path, active in activity.active.items():
                if active:
                    self._touch(path, activity.at)

    def touch(self, path: str, at: float) -> None:
        """The endpoint was used or woken at `at`."""
        with self._lock:
            self._touch(path, at)

    def use(self, path: str, now: float) -> Use:
        """When `namespace/name` was last used, and what it has to do now."""
        with self._lock:
            active = sum(seen.active.get(path, 0) for seen in self._gateways.values() if now - seen.at < GATEWAY_SILENT_S)
            return Use(self._last_used.get(path, self._started), active)

    def last_used(self) -> Mapping[str, float]:
        """Every endpoint's last use that was seen."""
        with self._lock:
            return dict(self._last_used)

    def _touch(self, path: str, at: float) -> None:
        self._last_used[path] = max(at, self._last_used.get(path, 0.0))
