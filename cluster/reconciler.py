"""The control loop: desired, observed, plan, attempt, record, publish. The database says what is wanted; Serve is made to agree.

Any pass may be the first one: nothing is remembered between passes that could not be seen again. A hint starts a pass
at once, the tick is the truth. `_attempt` and `_guarded` are the only places that catch every exception.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping

from cluster import (
    accounting,
    admission,
    compiling,
    errors,
    in_force,
    instance_types,
    key_endings,
    ledger,
    messages,
    observation,
    plan,
    publisher,
    reading,
    records,
    replica_timeline,
    snapshot,
    spares,
    state,
)
from cluster import board as boards
from cluster import spec as specs
from cluster.settings import Settings
from cluster.store.base import Store

log = logging.getLogger(__name__)
RETRY_S = (2.0, 5.0, 15.0, 60.0)
"""Pauses before an action that failed is attempted again."""
NOTE_USE_EVERY_S = 30.0
DECLARATIVE_GONE_S = 30.0
QUIET_TICKS = 5
"""Applications that somebody deploys by hand are noticed at a tick; nothing else happens without a hint then."""
REST_SHARE = 2.0
"""Hinted passes rest this many times as long as the last one took, at most REST_LIMIT_S."""
REST_LIMIT_S = 0.5
PUBLISH_REST_S = 0.02
SETTLE_S = 0.05
"""From a hint to its pass: publishing, and the answer to whoever changed something, come first."""


class Reconciler:
    """One per cluster. `status` and `cluster` answer from the last look at Serve."""

    def __init__(
        self,
        settings: Settings,
        cluster_secret: bytes,
        store: Store,
        serve: observation.Serve,
        board: boards.Board,
        published: publisher.Publisher,
        deployer: plan.Deployer,
        clock: Callable[[], float] = time.time,
        *,
        limits: ledger.Ledger | None = None,
        accounts: accounting.Accounts | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`limits` and `accounts` are what others share with it; without, it has its own. `wall` is the clock that keys end by."""
        self._settings = settings
        self._secret = cluster_secret
        self._store = store
        self._serve = serve
        self._board = board
        self._publisher = published
        self._deployer = deployer
        self._clock = clock
        self._wall = wall
        self._hinted = threading.Event()
        self._news = threading.Event()
        self._publishing = threading.Lock()
        self._stopped = threading.Event()
        self._observed: observation.Cluster | None = None
        self._backoff: dict[tuple[str, ...], tuple[int, float]] = {}
        self._noted: dict[str, float] = {}
        self._ready_since: dict[str, float] = {}
        self._declared_last_seen: dict[str, float] = {}
        self._handed: dict[str, observation.Deploy] = {}
        self._quiet = False
        self._prepared: set[tuple[str, str]] = set()
        self._spares = spares.Spares()
        self._rows = compiling.Rows(self._compile, wall)
        self._ledger = limits or ledger.Ledger(store, clock)
        self._accounts = accounts or accounting.Accounts(store, lambda: instance_types.NONE, settings.usage_days, clock)
        self.in_force = in_force.InForce()
        """Whether the gateways have what was hinted."""
        self._reader = reading.Reader(store)
        self.timeline = replica_timeline.Timeline()
        """When replicas came and went."""
        self.passed_at = 0.0
        """When the last whole pass ended."""

    def hint(self, what: str = "") -> None:
        """This endpoint, user or namespace (see `reading.Reader.hint`; '' = anything) changed: publish it and start a pass soon.

        Cheap, from any thread. Within a transaction, once that is kept: before, nobody would see what has changed.
        """
        self._store.afterwards(lambda: self._hint(what))
        self._store.afterwards(self._hinted.set)

    def hint_access(self, what: str) -> None:
        """As `hint`, where only gateways have something to do: without a pass, which would take time from telling them."""
        self._store.afterwards(lambda: self._hint(what))

    def _hint(self, what: str) -> None:
        self._reader.hint(what)
        self.in_force.hinted()
        self._news.set()

    def hurry(self) -> None:
        """A replica has news: publish them, and start a pass soon."""
        self._news.set()
        self._hinted.set()

    def spread(self) -> None:
        """Somebody has used up a limit: publish it now. Nothing else is to be done."""
        self._news.set()

    def start_now(self, endpoint: records.Endpoint) -> None:
        """Hands an endpoint that was just woken to Serve at once, where nothing stands in the way; the next pass finds it done.

        Anything less plain (an update under way, an application that still drains, a revision that failed) is left to that pass.
        """
        application = state.application_of(endpoint, endpoint.target)
        if self._observed is None or application in self._observed.applications or endpoint.serving not in (None, endpoint.target):
            return
        known = self._reader.known(endpoint.id)
        revision = known.revisions.get(endpoint.target) if known is not None else None
        if revision is None or revision.failed_at is not None:
            return
        try:
            wanted = self._deployer(endpoint, revision)
        except errors.MoorageError:
            return
        self._attempt(plan.Deploy(wanted))

    def run(self) -> None:
        """Passes until `stop`, one each tick (each QUIET_TICKS where nothing runs or should) and after each hint.

        Between hinted ones there is a rest, so that the API is not starved. What was hinted is published meanwhile, in a thread
        of its own: a revoked key must not wait for Serve's answers.
        """
        publishing = threading.Thread(target=self._publish_news, daemon=True, name="publish")
        publishing.start()
        while not self._stopped.is_set():
            began = time.monotonic()
            self._hinted.clear()
            self._guarded(self.reconcile)
            self._rest(time.monotonic() - began)
        publishing.join()

    def _publish_news(self) -> None:
        while not self._stopped.is_set():
            self._news.wait(self._ledger.rest())
            self._news.clear()
            began = time.monotonic()
            self._guarded(self.publish)
            self._stopped.wait(min(PUBLISH_REST_S, time.monotonic() - began))

    @staticmethod
    def _guarded(*steps: Callable[[], None]) -> None:
        """Runs them; whatever they raise is logged, since the next tick does it all again."""
        try:
            for step in steps:
                step()
        except errors.Unavailable as exc:
            log.warning("a pass was cut short: %s", exc.message)
        except Exception:  # the loop must outlive whatever a pass meets; the tick does it all again
            log.exception("a pass failed; the next tick tries again")

    def _rest(self, seconds: float) -> None:
        """Until the tick or a hint; a hint during the first moments is acted upon after them."""
        resting = min(REST_LIMIT_S, REST_SHARE * seconds)
        tick = self._settings.tick_s * (QUIET_TICKS if self._quiet else 1)
        self._stopped.wait(min(resting, tick))
        if self._hinted.wait(max(0.0, tick - resting)):
            self._stopped.wait(SETTLE_S)

    def stop(self) -> None:
        """End `run` after the pass in progress."""
        self._stopped.set()
        self._hinted.set()
        self._news.set()

    def reconcile(self) -> None:
        """One pass. Raises errors.Unavailable when Serve or the database does not answer."""
        handed = set(self._handed)
        self._observed = observed = self._serve.observe()
        for application in handed:
            self._handed.pop(application, None)
        for seen in observed.applications.values():
            if seen.status != "deleting":
                self._board.adopt(seen.name)
        self._reader.refresh(self._clock())
        rows = self._read()
        wanted = self._wanted(rows)
        views = {
            (item.endpoint.id, revision): view for item in wanted for revision, view in self._views(item.endpoint, observed, rows).items()
        }
        paths = {identity: item.endpoint.path for identity, item in rows.wanted.items()}
        self.timeline.see(frozenset(paths.values()), ((paths[identity], view) for (identity, _), view in views.items()), self._clock())
        announced = [replica for replicas in rows.replicas.values() for replica in replicas]
        for action in plan.plan(wanted, observed, views, announced, self._deployer, self._clock()):
            self._attempt(action)
        self._prepare_nodes(rows, observed)
        self._keep_spares(observed)
        self._end_keys()
        self._record(self.cluster())
        self._quiet = not observed.applications and not any(plan.wanted_revisions(item, {}) for item in wanted)
        self.publish()
        self.passed_at = self._clock()
        self._accounts.look(rows, observed)

    def publish(self) -> None:
        """Compile what is known now and stream it to the gateways; nothing before the first look at Serve."""
        with self._publishing:
            observed = self._observed
            if observed is not None:
                count = self.in_force.count
                live = {*observed.applications, *self._board.applications()}
                rows = self._read()
                blocks = self._ledger.changes(rows)
                self._publisher.publish(*self._rows.changes(rows, observed, live), blocks=blocks, gateways=self.in_force.gateways())
                self.in_force.published(count, self._publisher.version)

    def status(self, endpoint: records.Endpoint) -> state.Status:
        """The derived status of an endpoint, from the last look at Serve and what replicas have said until now."""
        revisions = {row.number: row for row in self._store.revisions(endpoint.id)}
        return state.derive(endpoint, revisions, self._views(endpoint, self.cluster(), self._read()))

    def cluster(self) -> observation.Cluster:
        """The last look at Serve; empty before the first."""
        return self._observed or observation.Cluster()

    def loads(self, endpoint: records.Endpoint) -> list[float]:
        """What each replica of the serving revision has to do right now. Raises errors.Unavailable."""
        application = state.application_of(endpoint, endpoint.serving or endpoint.target)
        seen = self.cluster().applications.get(application)
        if seen is None or not any(replica.state == "running" for replica in seen.replicas):
            return []
        return self._serve.loads(application, {replica.member for replica in seen.replicas})

    # Reading

    def _read(self) -> reading.Reading:
        return self._reader.read()

    def _wanted(self, rows: reading.Reading) -> list[plan.Wanted]:
        """Endpoints that may have something to do: one at zero, or paused, wants no application."""
        now = self._clock()
        found = []
        for item in rows.wanted.values():
            if not item.endpoint.awake or item.endpoint.desired == "paused":
                continue
            use = self._board.use(item.endpoint.path, now)
            last = max(use.last, self._ready_since.get(item.endpoint.id, 0.0))
            found.append(dataclasses.replace(item, last_active=last, active=use.active))
        return found

    def _views(self, endpoint: records.Endpoint, observed: observation.Cluster, rows: reading.Reading) -> dict[int, state.RevisionView]:
        """What is seen of the endpoint's serving and target revisions."""
        views = {}
        for revision in {endpoint.target, endpoint.serving or endpoint.target}:
            application = state.application_of(endpoint, revision)
            seen = observed.applications.get(application)
            phases = self._board.phases(application)
            if seen is not None or phases:
                announced = frozenset(replica.id for replica in rows.replicas.get(application, ()))
                view = view_of(seen, announced, phases, observed.nodes)
                told = self._board.adapters(application)
                views[revision] = dataclasses.replace(view, asleep=self._board.asleep(application), adapters=told)
        return views

    def _compile(self, item: plan.Wanted, rows: reading.Reading, observed: observation.Cluster) -> snapshot.Endpoint:
        endpoint = item.endpoint
        status = state.derive(endpoint, item.revisions, self._views(endpoint, observed, rows))
        replicas: tuple[records.Replica, ...] = ()
        for revision in sorted({endpoint.target, endpoint.serving or endpoint.target}):
            replicas += self._alive(state.application_of(endpoint, revision), observed, rows)
        member_of = {replica.id: self._member(replica, observed) for replica in replicas} if status.members else None
        tenant = rows.people.tenant_of(endpoint.namespace)
        return publisher.compile_endpoint(endpoint, status, replicas, self._settings, self._secret, member_of, tenant)

    @staticmethod
    def _member(replica: records.Replica, observed: observation.Cluster) -> str:
        return next(seen.member for seen in observed.applications[replica.application].replicas if seen.id == replica.id)

    @staticmethod
    def _alive(application: str, observed: observation.Cluster, rows: reading.Reading) -> tuple[records.Replica, ...]:
        seen = observed.applications.get(application)
        running = {replica.id for replica in seen.staying} if seen else set()
        return tuple(replica for replica in rows.replicas.get(application, ()) if replica.id in running)

    # Acting

    def _prepare_nodes(self, rows: reading.Reading, observed: observation.Cluster) -> None:
        """Each node once for each environment of an engine that only endpoints at zero use: their first request is not to wait for it."""
        nodes = {node.id for node in observed.nodes}
        self._prepared = {known for known in self._prepared if known[0] in nodes}
        for item in rows.wanted.values():
            revision = item.revisions.get(item.endpoint.target)
            if item.endpoint.awake or item.endpoint.desired != "running" or revision is None:
                continue
            model = revision.fields.get("model", {})
            for source in model.get("members") or (model,):
                if admission.SLOW_TO_IMPORT.intersection(source.get("image", {})):
                    environment = repr(sorted(source.get("env", {}).items()))
                    for node in nodes - {known for known, prepared in self._prepared if prepared == environment}:
                        self._prepared.add((node, environment))
                        self._prepare(node, item.endpoint, revision, source.get("name", ""))

    def _prepare(self, node: str, endpoint: records.Endpoint, revision: records.Revision, member: str) -> None:
        with contextlib.suppress(errors.MoorageError):
            parts = self._deployer(endpoint, revision).parts
            self._serve.prepare(node, next(part.spec for part in parts if part.spec.member == member))

    def _keep_spares(self, observed: observation.Cluster) -> None:
        if not self._settings.spare_workers:
            return
        for node in self._spares.due(observed, self._clock()):
            with contextlib.suppress(errors.MoorageError):
                self._serve.spare(node, spares.KEPT_S)

    def _attempt(self, action: plan.Action) -> None:
        """Do one action; a failure is kept for the next passes and never stops the others."""
        subject = plan.subject(action)
        failures, not_before = self._backoff.get(subject, (0, 0.0))
        now = self._clock()
        if now < not_before:
            return
        try:
            self._perform(action, now)
        except Exception as exc:  # one failing action never stops the others; it is tried again later
            self._backoff[subject] = (failures + 1, now + RETRY_S[min(failures, len(RETRY_S) - 1)])
            log.warning(
                "%s failed, attempt %d: %s", type(action).__name__, failures + 1, exc, exc_info=not isinstance(exc, errors.MoorageError)
            )
            return
        self._backoff.pop(subject, None)

    def _perform(self, action: plan.Action, now: float) -> None:
        match action:
            case plan.Deploy(wanted):
                if self._handed.get(wanted.spec.application) == wanted:
                    return  # since the last look at Serve
                self._handed[wanted.spec.application] = wanted
                seen = self.cluster().applications.get(wanted.spec.application)
                new = seen is None or seen.status == "deleting"
                if new:
                    self._board.begin(wanted.spec.application, now)
                self._serve.deploy(wanted)
                if new:
                    self._tell_deploying(wanted.spec, self._clock())
            case plan.Remove(application):
                self._end(application)
            case plan.Promote(endpoint, revision):
                self._promote(endpoint, revision, now)
            case plan.Fail(endpoint, revision, reason, message):
                self._store.mark_revision(endpoint.id, revision, failed_at=now, reason=reason, message=message)
                event = records.Event(endpoint.id, now, "failed", message, "error", revision, reason=reason)
                self._store.add_events([event])
                self._reader.hint(endpoint.id)
                # At once, so that a command to try again starts from nothing instead of meeting the old failure.
                self._end(state.application_of(endpoint, revision))
            case plan.Sleep(endpoint, idle):
                event = records.Event(
                    endpoint.id, now, "scaled_to_zero", f"No request for {idle:.0f} s: scaled to zero.", revision=endpoint.serving
                )
                self._note(endpoint, {"awake": False}, event)
                self._accounts.slept(endpoint, idle)
            case plan.Forget(replicas):
                self._store.remove_replicas(replicas)

    def _tell_deploying(self, spec: specs.ReplicaSpec, at: float) -> None:
        path = f"{spec.namespace}/{spec.endpoint}"
        found = next((item.endpoint for item in self._read().wanted.values() if item.endpoint.path == path), None)
        if found is not None:
            text = f"Revision {spec.revision} is handed to Ray Serve."
            self._store.add_events([records.Event(found.id, at, "deploying", text, revision=spec.revision)])

    def _end(self, application: str) -> None:
        self._board.end(application)
        self._handed.pop(application, None)
        self._serve.remove(application)
        looked = self.cluster()
        if application in looked.applications:  # what was seen of it is over: resumed before the next look, it does not run
            ended = dataclasses.replace(looked.applications[application], status="deleting")
            self._observed = dataclasses.replace(looked, applications={**looked.applications, application: ended})

    def _promote(self, endpoint: records.Endpoint, revision: int, now: float) -> None:
        self._store.mark_revision(endpoint.id, revision, live_at=now)
        text = f"Revision {revision} is ready and gets the traffic."
        self._note(endpoint, {"serving": revision}, records.Event(endpoint.id, now, "live", text, revision=revision))
        self._board.touch(endpoint.path, now)
        # The edge must know before the old revision's application starts to drain.
        self.publish()

    def _note(self, endpoint: records.Endpoint, changes: Mapping[str, object], *events: records.Event) -> None:
        self._store.note_endpoint(endpoint.id, changes, events)
        self._reader.hint(endpoint.id)

    # Recording

    def _end_keys(self) -> None:
        """Keys whose time is over are called expired, and told of once; the edge has refused them since their last second."""
        with self._publishing:
            ended = self._rows.ended()
        key_endings.end_all(self._store, ended, self._wall(), self._reader.hint)

    def _record(self, observed: observation.Cluster) -> None:
        """What was seen and is worth keeping: learned load times, last uses, declarative applications that are gone."""
        now = self._clock()
        rows = self._read()
        used = self._board.last_used()
        for identity, item in rows.wanted.items():
            endpoint = item.endpoint
            if endpoint.awake or identity in self._ready_since:
                view = self._views(endpoint, observed, rows).get(endpoint.serving or endpoint.target)
                self._note_ready(endpoint, bool(view and view.answers), now)
            self._note_use(endpoint, used.get(endpoint.path), now)
            if endpoint.source == "declarative":
                self._note_declared(endpoint, observed, now)
        for remembered in (self._ready_since, self._noted, self._declared_last_seen):
            for identity in remembered.keys() - rows.wanted.keys():
                del remembered[identity]

    def _note_ready(self, endpoint: records.Endpoint, ready: bool, now: float) -> None:
        if not ready:
            self._ready_since.pop(endpoint.id, None)
        elif endpoint.id not in self._ready_since:
            self._ready_since[endpoint.id] = now
            began = self._board.began(state.application_of(endpoint, endpoint.serving or endpoint.target))
            if began is not None:
                self._note(endpoint, {"load_seconds": round(now - began, 1)})

    def _note_use(self, endpoint: records.Endpoint, used: float | None, now: float) -> None:
        if used is None or used <= (endpoint.last_request_at or 0) or now - self._noted.get(endpoint.id, 0.0) < NOTE_USE_EVERY_S:
            return
        self._noted[endpoint.id] = now
        self._note(endpoint, {"last_request_at": used})

    def _note_declared(self, endpoint: records.Endpoint, observed: observation.Cluster, now: float) -> None:
        application = state.application_of(endpoint, endpoint.target)
        last = self._declared_last_seen.setdefault(endpoint.id, now)
        if application in observed.applications:
            self._declared_last_seen[endpoint.id] = now
        elif now - last > DECLARATIVE_GONE_S:
            self._store.delete_endpoint(endpoint.id)
            self._reader.hint(endpoint.id)


def view_of(
    seen: observation.Application | None,
    announced: frozenset[str],
    phases: Mapping[str, messages.Phase],
    nodes: tuple[observation.Node, ...],
) -> state.RevisionView:
    """Joins what Serve lists of an application with what its replicas told."""
    if seen is None:
        return state.RevisionView(phases=phases)
    ready = frozenset(replica.id for replica in seen.staying if replica.id in announced)
    parts = {part.spec.member: part for part in seen.deployed.parts} if seen.deployed is not None else {}
    waiting = next((parts[replica.member] for replica in seen.replicas if replica.waiting and replica.member in parts), None)
    needs = needs_of(waiting.spec.placement, nodes) if waiting is not None else None
    answering = {replica.member for replica in seen.replicas if replica.id in ready}
    missing = frozenset(member for member in {*parts, *seen.targets} if member and member not in answering)
    return state.RevisionView(seen, ready, phases, needs, missing=missing)


def needs_of(placement: specs.Placement, nodes: tuple[observation.Node, ...]) -> observation.Needs:
    """What a replica that found no place needs, beside what there is."""
    kind = placement.accelerator_type or ""
    fitting = [node for node in nodes if not kind or node.accelerator == kind]
    return observation.Needs(
        gpus=placement.gpus,
        cpus=placement.cpus,
        total_gpus=sum(node.gpus for node in fitting),
        total_cpus=sum(node.cpus for node in nodes),
        free_gpus_best_node=max((node.gpus_free for node in fitting), default=0),
        free_cpus_best_node=max((node.cpus_free for node in nodes), default=0),
        accelerator=kind,
    )
