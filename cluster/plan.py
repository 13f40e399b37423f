"""What to do next: pure, from what is wanted and what is seen. Every action is idempotent; the reconciler attempts them.

The order of actions matters only within one endpoint: promote before remove, so that traffic has moved when the old
application starts to drain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from cluster import errors, messages, observation, records, state
from cluster import spec as specs


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One endpoint with the revisions that matter (serving and target) and when it was last used (Unix seconds)."""

    endpoint: records.Endpoint
    revisions: Mapping[int, records.Revision]
    last_active: float = 0.0
    active: int = 0
    """Requests running, waiting or held now."""


@dataclasses.dataclass(frozen=True)
class Deploy:
    """Make Serve run this, in place where only bounds differ."""

    wanted: observation.Deploy


@dataclasses.dataclass(frozen=True)
class Remove:
    """Drain and delete an application that nothing wants."""

    application: str


@dataclasses.dataclass(frozen=True)
class Promote:
    """The target revision is ready: it becomes the serving one and gets the traffic."""

    endpoint: records.Endpoint
    revision: int


@dataclasses.dataclass(frozen=True)
class Fail:
    """The target revision cannot work."""

    endpoint: records.Endpoint
    revision: int
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Sleep:
    """Idle for its timeout: scale to zero."""

    endpoint: records.Endpoint
    idle_s: float


@dataclasses.dataclass(frozen=True)
class Forget:
    """Announced replicas that Serve no longer runs."""

    replicas: frozenset[str]


CRASHES, CRASH_WINDOW_S = 5, 600.0
"""So many crashes for each replica that Serve means to run, within this time, and a revision is given up."""

Action = Deploy | Remove | Promote | Fail | Sleep | Forget


def subject(action: Action) -> tuple[str, ...]:
    """What an action is about, the same for the same action in a later pass: its failures are counted under it."""
    kind = type(action).__name__
    match action:
        case Deploy(wanted):
            return kind, wanted.spec.application
        case Remove(application):
            return kind, application
        case Promote(endpoint, revision) | Fail(endpoint, revision):
            return kind, endpoint.id, str(revision)
        case Sleep(endpoint):
            return kind, endpoint.id
        case Forget():
            return (kind,)


Deployer = Callable[[records.Endpoint, records.Revision], observation.Deploy]
"""What to deploy for a revision: admission's reading of instance type, engine and placement."""
Views = Mapping[tuple[str, int], state.RevisionView]
"""(endpoint id, revision) -> what is seen of it."""


def plan(
    desired: Iterable[Wanted],
    observed: observation.Cluster,
    views: Views,
    announced: Collection[records.Replica],
    deployer: Deployer,
    now: float,
) -> list[Action]:
    """All actions that bring what is seen closer to what is wanted; empty when they agree."""
    actions: list[Action] = []
    kept: set[str] = set()
    for wanted in desired:
        if wanted.endpoint.source == "declarative":
            continue
        actions += _transitions(wanted, views, now)
        for revision in sorted(wanted_revisions(wanted, views)):
            kept.add(state.application_of(wanted.endpoint, revision))
            actions += _deployment(wanted, revision, observed, deployer)
    actions += [Remove(name) for name in sorted(observed.applications) if _orphan(observed.applications[name], kept)]
    gone = frozenset(replica.id for replica in announced if not _alive(observed, replica))
    return [*actions, Forget(gone)] if gone else actions


def wanted_revisions(wanted: Wanted, views: Views) -> set[int]:
    """Which revisions of an endpoint should have an application right now."""
    endpoint = wanted.endpoint
    if endpoint.desired == "paused" or not endpoint.awake:
        return set()
    target = wanted.revisions.get(endpoint.target)
    target_works = target is not None and (target.failed_at is None or _view(views, endpoint, endpoint.target).answers)
    if endpoint.serving is None or endpoint.serving == endpoint.target or endpoint.serving not in wanted.revisions:
        return {endpoint.target} if target_works else set()
    if not target_works:
        return {endpoint.serving}
    return {endpoint.target} if endpoint.parsed.strategy == "recreate" else {endpoint.serving, endpoint.target}


def _transitions(wanted: Wanted, views: Views, now: float) -> Iterator[Action]:
    endpoint = wanted.endpoint
    if endpoint.desired == "paused" or not endpoint.awake:
        return
    target = wanted.revisions.get(endpoint.target)
    view = _view(views, endpoint, endpoint.target)
    if target is not None and endpoint.serving != endpoint.target and target.failed_at is None and _takes_over(endpoint, view, views):
        yield Promote(endpoint, endpoint.target)
    elif target is not None and target.failed_at is None and not view.answers and (failure := _failure(view, now)) is not None:
        yield Fail(endpoint, endpoint.target, *failure)
    if (idle := _idle_seconds(wanted, view, now)) is not None:
        yield Sleep(endpoint, idle)


def _deployment(wanted: Wanted, revision: int, observed: observation.Cluster, deployer: Deployer) -> Iterator[Action]:
    try:
        deploy = deployer(wanted.endpoint, wanted.revisions[revision])
    except errors.MoorageError as exc:
        if wanted.revisions[revision].failed_at is None:
            yield Fail(wanted.endpoint, revision, "InvalidRevision", exc.message)
        return
    application = observed.applications.get(deploy.spec.application)
    if application is None or application.status == "deleting" or application.deployed != deploy:
        yield Deploy(deploy)


def _takes_over(endpoint: records.Endpoint, view: state.RevisionView, views: Views) -> bool:
    """From a revision that answers, when all its replicas are ready (or as many as find room); from nothing, with its first answer."""
    if not view.answers:
        return False
    if endpoint.serving is None or not _view(views, endpoint, endpoint.serving).answers:
        return True
    return len(view.ready) >= (view.application.target if view.application else 1) or view.needs is not None


def _failure(view: state.RevisionView, now: float) -> tuple[str, str] | None:
    failed = [phase for phase in view.phases.values() if phase.name == "failed"]
    permanent = next((phase for phase in failed if phase.permanent), None)
    if permanent is not None:
        return permanent.reason, permanent.sentence
    crashes = [phase for phase in failed if phase.reason == messages.CRASHED and now - phase.at < CRASH_WINDOW_S]
    for member in sorted({phase.member for phase in crashes}):
        times = sum(phase.member == member for phase in crashes)
        if times >= CRASHES * max(1, _target(view, member)):
            newest = max((phase for phase in crashes if phase.member == member), key=lambda phase: phase.at)
            text = f"The engine crashed {times} times within ten minutes. The last time: {newest.message}"
            return "CrashLoop", dataclasses.replace(newest, message=text).sentence
    if view.application is None or view.application.status != "failed":
        return None
    last = max(failed, key=lambda phase: phase.at, default=None)
    if last is not None:
        return last.reason, last.sentence
    return "DeployFailed", "The replica could not be started: the endpoint's logs tell why."


def _target(view: state.RevisionView, member: str) -> int:
    """How many replicas Serve means to run (of a member)."""
    if view.application is None:
        return 1
    return view.application.targets.get(member, view.application.target)


def _idle_seconds(wanted: Wanted, view: state.RevisionView, now: float) -> float | None:
    """How long the endpoint has been idle when that is over its timeout, else None. Loading is not idling."""
    endpoint = wanted.endpoint
    scaling = endpoint.parsed.compute.scaling
    if scaling.min_replica > 0 or scaling.scale_to_zero_timeout is None or wanted.active or not view.answers or endpoint.serving is None:
        return None
    idle = now - wanted.last_active
    return idle if idle > scaling.scale_to_zero_timeout * 60 else None


def _orphan(application: observation.Application, kept: set[str]) -> bool:
    ours = not application.declarative and specs.parse_application_name(application.name) is not None
    return ours and application.name not in kept and application.status != "deleting"


def _alive(observed: observation.Cluster, replica: records.Replica) -> bool:
    application = observed.applications.get(replica.application)
    return application is not None and any(seen.id == replica.id for seen in application.replicas)


def _view(views: Views, endpoint: records.Endpoint, revision: int) -> state.RevisionView:
    return views.get((endpoint.id, revision), state.RevisionView())
