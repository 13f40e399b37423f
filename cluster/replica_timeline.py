"""When replicas came and went: how many were pending and running, and since when each is what it is.

Fed by every pass of the reconciler; in memory, since the passes after a restart see what there is again.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from cluster import state

POINTS_KEPT = 200
State = Literal["pending", "starting", "running", "stopping"]
STATES: tuple[State, ...] = ("pending", "starting", "running", "stopping")
"""`pending`: nothing has room for it yet; `starting`: placed, its server is not ready; `running`: it answers."""


@dataclasses.dataclass(frozen=True)
class Replica:
    """A replica, and when (Unix seconds) it was first seen in the states it went through."""

    id: str
    state: State
    member: str = ""
    node: str = ""
    since: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Point:
    """From `at` on, so many replicas of each state."""

    at: float
    counts: Mapping[str, int]
    target: int


@dataclasses.dataclass(frozen=True)
class Replicas:
    """An endpoint's replicas now, how many are wanted, and the points at which that changed, oldest first."""

    now: tuple[Replica, ...] = ()
    target: int = 0
    points: tuple[Point, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Replicas by state, all four of them."""
        seen = collections.Counter(replica.state for replica in self.now)
        return {name: seen[name] for name in STATES}


class Timeline:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Replicas] = {}
        self._listeners: list[Callable[[Collection[str]], None]] = []

    def listen(self, listener: Callable[[Collection[str]], None]) -> None:
        """Tells it, at every look, the paths of all endpoints that there are."""
        self._listeners.append(listener)

    def see(self, paths: Collection[str], views: Iterable[tuple[str, state.RevisionView]], at: float) -> None:
        """A look at everything: every endpoint's path, and what is seen of revisions, by the path of their endpoint."""
        seen: dict[str, list[state.RevisionView]] = {}
        for path, view in views:
            seen.setdefault(path, []).append(view)
        with self._lock:
            known = {path: row for path, row in self._known.items() if path in paths}
            self._known = {path: _next(known.get(path, Replicas()), seen.get(path, []), at) for path in {*known, *seen}}
        for listener in self._listeners:
            listener(paths)

    def replicas(self, path: str) -> Replicas:
        """Of the endpoint `namespace/name`."""
        with self._lock:
            return self._known.get(path, Replicas())


def _next(before: Replicas, views: Sequence[state.RevisionView], at: float) -> Replicas:
    if not views and before.points and not before.now and not before.target:
        return before  # it was at zero, and is
    earlier = {replica.id: replica for replica in before.now}
    now = tuple(replica for view in views for replica in _replicas(view, earlier, at))
    target = sum(view.application.target for view in views if view.application)
    after = Replicas(now, target, before.points)
    if after.points and (after.counts, target) == (before.counts, before.target):
        return after
    return dataclasses.replace(after, points=(*before.points, Point(at, after.counts, target))[-POINTS_KEPT:])


def _replicas(view: state.RevisionView, earlier: Mapping[str, Replica], at: float) -> Iterable[Replica]:
    for seen in view.application.replicas if view.application else ():
        word: State = "pending" if seen.node is None else "starting"
        if seen.state == "stopping":
            word = "stopping"
        elif seen.id in view.ready:
            word = "running"
        since = earlier[seen.id].since if seen.id in earlier else {}
        yield Replica(seen.id, word, seen.member, seen.node or "", {word: at, **since})
