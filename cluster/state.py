"""An endpoint's state, derived from what is wanted and what is seen; never assigned. Also: which command is allowed when."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from cluster import adapters, members, messages, observation, records
from cluster import spec as specs

# Hugging Face's eight words, with what a user may conclude from each.
PENDING = "pending"  # nothing runs yet: queued, or waiting for hardware (reason AwaitingResources)
INITIALIZING = "initializing"  # a replica downloads, loads or warms; no revision answers yet, or all replicas were lost
RUNNING = "running"  # at least one replica of the serving revision answers
UPDATING = "updating"  # the serving revision answers while a newer one starts
UPDATE_FAILED = "updateFailed"  # the newest revision failed; the one before it serves on
PAUSED = "paused"  # stopped by a person; only `resume` starts it
FAILED = "failed"  # the only revision failed; nothing answers until it is updated, resumed or restarted
SCALED_TO_ZERO = "scaledToZero"  # no replica; the next request starts one

STATES = frozenset({PENDING, INITIALIZING, RUNNING, UPDATING, UPDATE_FAILED, PAUSED, FAILED, SCALED_TO_ZERO})

ALLOWED: Mapping[str, frozenset[str]] = {
    "update": STATES,
    "delete": STATES,
    "pause": STATES,
    "resume": frozenset({PAUSED, FAILED, UPDATE_FAILED, SCALED_TO_ZERO}),
    "scale-to-zero": STATES - {PAUSED, FAILED},
    "restart": STATES - {PAUSED},
    "rollback": STATES - {PAUSED},
}
"""Command -> the states it may be given in."""

AWAITING_RESOURCES = "AwaitingResources"
SLEEPING = "Sleeping"


@dataclasses.dataclass(frozen=True)
class RevisionView:
    """What is seen of one revision's application, joined with what its replicas told."""

    application: observation.Application | None = None
    ready: Collection[str] = ()
    """Ids of replicas that Serve runs and that announced a server."""
    phases: Mapping[str, messages.Phase] = dataclasses.field(default_factory=dict)
    needs: observation.Needs | None = None
    """Set while a replica has no place."""
    asleep: Collection[str] = ()
    """Ids of replicas whose engine sleeps until the next request."""
    adapters: Mapping[str, Sequence[messages.AdapterState]] = dataclasses.field(default_factory=dict)
    """Replica id -> what it said of its adapters."""
    missing: Collection[str] = ()
    """Members of which no replica is ready."""

    @property
    def answers(self) -> bool:
        """Whether there is a ready replica, of every member."""
        return bool(self.ready) and not self.missing


@dataclasses.dataclass(frozen=True)
class MemberStatus:
    """One member of the revision that the endpoint's status speaks of. `state` is one of Hugging Face's words."""

    name: str
    state: str
    ready: int = 0
    target: int = 0
    task: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """The derived status. `phase` is the furthest step of the newest revision's replicas, '' when nothing starts."""

    state: str
    reason: str = ""
    message: str = ""
    phase: str = ""
    ready: int = 0
    target: int = 0
    revision: int | None = None
    """The serving revision."""
    needs: observation.Needs | None = None
    progress: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Numbers of the present phase, e.g. {"bytes": 1, "total": 2}."""
    adapters: tuple[adapters.Status, ...] = ()
    members: tuple[MemberStatus, ...] = ()
    """The primary one first; () for an endpoint of one model."""


STARTING = ("downloading", "starting", "importing", "loading", "compiling", "warming", "smoke_test", "adapters")
ORDER = (*STARTING, "adapter_ready", "adapter_failed", "ready")


def derive(endpoint: records.Endpoint, revisions: Mapping[int, records.Revision], views: Mapping[int, RevisionView]) -> Status:
    """The status of `endpoint`, from its serving and target revisions and what is seen of them."""
    serving = views.get(endpoint.serving or endpoint.target, RevisionView())
    told = adapters.statuses(endpoint, serving.adapters, serving.ready)
    status = dataclasses.replace(_derive(endpoint, revisions, views), adapters=told)
    shown = endpoint.target if endpoint.serving is None else endpoint.serving
    known = revisions.get(shown)
    names = members.of_revision(known.fields) if known is not None else ()
    if not names:
        return status
    view = views.get(shown, RevisionView())
    return dataclasses.replace(status, members=tuple(_member(name, task, status, view) for name, task in names))


def _derive(endpoint: records.Endpoint, revisions: Mapping[int, records.Revision], views: Mapping[int, RevisionView]) -> Status:
    if endpoint.desired == "paused":
        return Status(PAUSED, revision=endpoint.serving, message="Paused: resume it to use it again.")
    target = revisions.get(endpoint.target)
    view = views.get(endpoint.target, RevisionView())
    if endpoint.serving is None or endpoint.serving == endpoint.target:
        return _single(endpoint, target, view)
    return _updating(endpoint, target, view, views.get(endpoint.serving, RevisionView()))


def _single(endpoint: records.Endpoint, target: records.Revision | None, view: RevisionView) -> Status:
    counts = {"ready": len(view.ready), "target": _target(view), "revision": endpoint.serving}
    if target is not None and target.failed_at is not None and not view.answers:
        return Status(FAILED, target.reason, target.message, "failed", revision=endpoint.serving)
    if not endpoint.awake:
        return Status(SCALED_TO_ZERO, message="Scaled to zero: the next request starts a replica.", revision=endpoint.serving)
    answers = view.answers and endpoint.serving is not None  # until it is promoted, the edge sends nobody there
    if answers and set(view.ready) <= set(view.asleep):
        return Status(RUNNING, SLEEPING, "Asleep: the next request wakes it.", **counts)  # type: ignore[arg-type]
    if answers:
        return Status(RUNNING, **counts)  # type: ignore[arg-type]
    return dataclasses.replace(_starting(endpoint, view), ready=len(view.ready))


def _updating(endpoint: records.Endpoint, target: records.Revision | None, new: RevisionView, old: RevisionView) -> Status:
    ready = len(old.ready)
    failed = target is not None and target.failed_at is not None
    if failed and target is not None:
        state = UPDATE_FAILED if endpoint.awake else SCALED_TO_ZERO
        return Status(state, target.reason, target.message, "failed", ready, _target(old), endpoint.serving)
    if not endpoint.awake:
        return Status(SCALED_TO_ZERO, message="Scaled to zero: the next request starts a replica.", revision=endpoint.serving)
    starting = _starting(endpoint, new)
    state = UPDATING if ready or endpoint.parsed.strategy == "surge" else starting.state
    return dataclasses.replace(starting, state=state, ready=ready, target=_target(old))


def _starting(endpoint: records.Endpoint, view: RevisionView) -> Status:
    """Between wanted and ready: pending while nothing has a place, initializing from then on."""
    common = {"revision": endpoint.serving, "target": max(1, _target(view))}
    phase = _furthest(view)
    if view.needs is not None and not phase:
        return Status(PENDING, AWAITING_RESOURCES, f"{_waiter(view)} {view.needs.sentence()}.", needs=view.needs, **common)  # type: ignore[arg-type]
    placed = view.application is not None and any(replica.node for replica in view.application.staying)
    if phase is None and not placed:
        return Status(PENDING, "Queued", "Waiting for a replica to be placed.", "queued", **common)  # type: ignore[arg-type]
    if phase is None:
        return Status(INITIALIZING, "Placing", "The replica's process starts.", "placing", **common)  # type: ignore[arg-type]
    reason = {"failed": "Retrying"}.get(phase.name, phase.name.title().replace("_", ""))
    numbers = {name: value for name, value in phase.data.items() if isinstance(value, int | float)}
    return Status(INITIALIZING, reason, phase.sentence, phase.name, progress=numbers, **common)  # type: ignore[arg-type]


def _member(name: str, task: str, status: Status, view: RevisionView) -> MemberStatus:
    replicas = [one for one in view.application.staying if one.member == name] if view.application else []
    ready = sum(one.id in view.ready for one in replicas)
    target = view.application.targets.get(name, 0) if view.application else 0
    if ready:
        word = RUNNING
    elif status.state in {PAUSED, SCALED_TO_ZERO, FAILED}:
        word = status.state
    else:
        word = INITIALIZING if any(one.node for one in replicas) else PENDING
    return MemberStatus(name, word, ready, target, task)


def _waiter(view: RevisionView) -> str:
    """Who waits for room, to begin a sentence with."""
    waiting = [one.member for one in view.application.replicas if one.waiting and one.member] if view.application else []
    return f"Member {waiting[0]}" if waiting else "This endpoint"


def _furthest(view: RevisionView) -> messages.Phase | None:
    """Of the replicas that are waited for: those of a member that is ready already tell nothing."""
    phases = [phase for phase in view.phases.values() if phase.name in ORDER or phase.name == "failed"]
    if view.missing:
        phases = [phase for phase in phases if phase.member in view.missing]
    return max(phases, key=lambda phase: ORDER.index(phase.name) if phase.name in ORDER else -1, default=None)


def _target(view: RevisionView) -> int:
    return view.application.target if view.application else 0


def application_of(endpoint: records.Endpoint, revision: int) -> str:
    """The Serve application of a revision of `endpoint`; a declarative endpoint keeps the name its author gave it."""
    return str(endpoint.spec.get("application") or specs.application_name(endpoint.namespace, endpoint.name, revision))
