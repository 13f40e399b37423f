"""The manager as a Serve application: the management API over HTTP, and the calls of replicas and gateways by handle.

Builds everything once, in its constructor, and starts the reconciler's thread. All decisions are made elsewhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve

from cluster import (
    accounting,
    adapter_desk,
    adapters,
    admission,
    audit,
    board,
    counted,
    credential_control,
    credential_lookup,
    credentials,
    declared,
    errors,
    hardware,
    history,
    instance_types,
    key_control,
    ledger,
    log_store,
    measuring,
    messages,
    meter,
    metrics_view,
    model_control,
    observation,
    platform_keys,
    publisher,
    ray_serve,
    reconciler,
    records,
    service_metrics,
    steady,
    surveyor,
    tenancy,
    vault,
)
from cluster import control as controls
from cluster import spec as specs
from cluster.api.app import create_app
from cluster.settings import Settings
from cluster.store import open_store

log = logging.getLogger(__name__)
PROGRESS_EVENT_EVERY_S = 5.0
IN_FORCE_S = 0.25
"""How long the answer to a change waits until every gateway has it, and then until every replica knows its adapters."""
METERING_THREADS = 8
"""Batches of use that wait for the database together, to be stored in one transaction; they keep nothing else waiting."""
SWITCH_S = 0.001
"""A revocation must not wait for a pass of the reconciler that computes: threads take turns five times as often as by default."""


class ManagerBody:
    """What the Serve deployment wraps. Methods without an underscore are called by replicas and gateways through a handle."""

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._settings = settings = Settings()
        self._secret = secret = (settings.home / "secret").read_bytes().strip()
        self._store = open_store(settings.database)
        self._clock = steady.SteadyClock()
        self._board = board.Board(self._clock())
        self._publisher = publisher.Publisher(int(time.time() * 1000))
        serving = ray_serve.RayServe()
        self._types = instance_types.Watched(settings.home, settings.instance_types)
        limits = ledger.Ledger(self._store)
        self._reconciler = reconciler.Reconciler(
            settings,
            secret,
            self._store,
            serving,
            self._board,
            self._publisher,
            self._deploy_of,
            self._clock,
            limits=limits,
            accounts=accounting.Accounts(self._store, self._types, settings.usage_days, self._clock),
        )
        self._meter = meter.Meter(
            store=self._store, ledger=limits, endpoint_of=self._endpoint_of, types=self._types, news=self._reconciler.spread
        )
        self._metering = ThreadPoolExecutor(METERING_THREADS, "usage")
        self._vault = vault.Vault(secret, settings.vault_key_file)
        self._credentials = credential_lookup.CredentialLookup(self._store, self._vault)
        self._kept = credential_control.CredentialControl(store=self._store, vault=self._vault)
        self._logs = log_store.LogStore(settings.home / "logs" / "endpoints", days=settings.log_days, clock=self._clock)
        self._history = history.History(settings, self._store, self._logs, self._clock, counted.Counted(self._store))
        self._desk = adapter_desk.Desk(self._endpoint_of)
        look = surveyor.Surveyor(serving.survey)
        self._models = model_control.ModelControl(settings=settings, store=self._store, surveyor=look, credentials=self._credentials)
        self._control = controls.Control(
            settings=settings,
            store=self._store,
            vault=self._vault,
            statuses=self._reconciler.status,
            hint=self._changed,
            cluster=self._reconciler.cluster,
            loads=self._reconciler.loads,
            types=self._types,
            models=look,
        )
        self._keyring = key_control.KeyControl(store=self._store, hint=self._reconciler.hint_access)
        self._service = service_metrics.ServiceMetrics(self._clock)
        self._meter.on_usage.append(self._service.note)
        self._reconciler.timeline.listen(self._service.keep)
        self._measured = metrics_view.MetricsView(self._control, self._service, self._reconciler.timeline.replicas)
        self._platform_keys = platform_keys.PlatformKeys(store=self._store, hint=self._reconciler.hint_access)
        self._people = tenancy.Tenancy(store=self._store, hint=self._reconciler.hint)
        self._progress_noted: dict[str, float] = {}
        self._thread = threading.Thread(target=self._reconciler.run, name="reconciler", daemon=True)
        self._thread.start()
        self._history.start()

    def __serve_build_asgi_app__(self) -> Any:
        """The management API, which Serve routes /manage to."""
        return create_app(
            self._settings,
            control=self._control,
            keyring=self._keyring,
            models=self._models,
            kept=self._kept,
            people=self._people,
            platform_keyring=self._platform_keys,
            logs=self._logs,
            measured=self._measured,
            history=self._history,
            audit_log=audit.AuditLog(self._store, self._secret, self._settings.home),
            ready=lambda: self._reconciler.passed_at > 0,
            in_force=self._in_force,
        )

    def check_health(self) -> None:
        """Raises when the reconciler's thread has ended: Serve then replaces this replica."""
        if not self._thread.is_alive():
            raise RuntimeError("the reconciler has stopped")

    # Called by replicas

    async def register(self, replica: messages.ReplicaIdentity, spec: dict[str, Any]) -> messages.Bootstrap:
        """A replica starts: what it needs that may not lie in Serve's metadata. Declares a declarative endpoint."""
        return await asyncio.to_thread(self._register, replica, specs.ReplicaSpec.model_validate(spec))

    async def report(self, replica: messages.ReplicaIdentity, phase: messages.Phase) -> None:
        """A replica has come to a new phase of its life."""
        await asyncio.to_thread(self._report, replica, phase)

    async def announce(self, announcement: messages.Announcement) -> messages.PromptPolicy:
        """A replica's server is ready. Repeated as a heartbeat; only what is new is written. The answer is which prompts to keep."""
        return await asyncio.to_thread(self._announce, announcement)

    async def adapters(self, replica: messages.ReplicaIdentity, seen: messages.Adapters) -> messages.Adapters:
        """What adapters the replica is to have, as soon as that differs from what it has been told; else after a while."""
        return await self._desk.wait(replica, seen)

    async def integrations(self, replica: messages.ReplicaIdentity, names: Sequence[str]) -> credentials.ByKind:
        """The variables of these integrations of the replica's namespace, as they are now: an adapter is to be brought with them."""
        return await asyncio.to_thread(self._integrations_of, replica, names)

    async def withdraw(self, replica: messages.ReplicaIdentity) -> None:
        """A replica is about to drain: nothing new should go to it."""
        await asyncio.to_thread(self._store.remove_replicas, [replica.id])
        self._reconciler.hurry()

    async def logs(self, replica: messages.ReplicaIdentity, lines: Sequence[messages.LogLine]) -> None:
        """A batch of a server's output."""
        endpoint = await asyncio.to_thread(self._endpoint_of, replica.application)
        if endpoint is not None:
            await asyncio.to_thread(self._logs.append, endpoint.namespace, endpoint.name, replica.label, lines)

    async def usage(self, replica: messages.ReplicaIdentity, used: Sequence[messages.Usage]) -> Sequence[str]:
        """What requests of a replica used. Returns when it is stored; told again, it counts once.

        Gives those of their keys whose use counts against no limit in tokens or money now: what else they use can be told a little later.
        """
        return await asyncio.get_running_loop().run_in_executor(self._metering, self._meter.add, replica, used)

    async def prompts(self, replica: messages.ReplicaIdentity, prompts: Sequence[messages.Prompt]) -> None:
        """What clients sent and got, of an endpoint that wants it kept."""
        endpoint = await asyncio.to_thread(self._endpoint_of, replica.application)
        if endpoint is not None:
            await asyncio.to_thread(self._history.keep_prompts, endpoint, prompts)

    # Called by gateways

    async def watch(self) -> AsyncIterator[publisher.News]:
        """The Snapshot and then every Delta, for as long as the caller listens."""
        async for news in self._publisher.watch():
            yield news

    async def wake(self, path: str) -> None:
        """A request waits for an endpoint at zero: start it. Any number of calls start it once."""
        await asyncio.to_thread(self._wake, path)

    async def applied(self, gateway: str, version: int) -> None:
        """A gateway's HAProxy holds this version of the snapshot."""
        self._reconciler.in_force.applied(gateway, version)

    async def activity(self, seen: messages.Activity) -> None:
        """What a gateway saw since its last report."""
        self._board.note_activity(seen)
        self._service.note_activity(seen)
        if self._reconciler.in_force.applied(seen.gateway, seen.version):
            self._reconciler.hurry()
        if seen.keys_used:
            await asyncio.to_thread(self._store.note_keys_used, seen.keys_used)

    async def request_lines(self, lines: messages.RequestLines) -> int:
        """Lines of a gateway's access log; returns how far that segment has arrived."""
        return await asyncio.to_thread(self._history.lines, lines)

    # The work, in threads

    def _changed(self, endpoint_id: str) -> None:
        self._reconciler.hint(endpoint_id)
        self._store.afterwards(lambda: self._desk.changed(endpoint_id))

    def _in_force(self) -> None:
        """Until gateways and replicas have what was changed, or that takes too long."""
        self._reconciler.in_force.wait(IN_FORCE_S)
        self._desk.told(IN_FORCE_S)

    def _register(self, replica: messages.ReplicaIdentity, spec: specs.ReplicaSpec) -> messages.Bootstrap:
        self._board.adopt(replica.application)
        endpoint = self._declare(replica, spec) if spec.declarative else self._known_endpoint(replica)
        sealed = self._store.secrets(endpoint.id)
        secrets = {name: self._vault.open(value) for name, value in sealed.items()}
        named, integrations = self._credentials.of_replica(endpoint.namespace, spec.model)
        secret = publisher.engine_secret(self._secret, endpoint.id)
        return messages.Bootstrap(secret, {**secrets, **named}, adapters.wanted(endpoint), integrations)

    def _integrations_of(self, replica: messages.ReplicaIdentity, names: Sequence[str]) -> credentials.ByKind:
        endpoint = self._known_endpoint(replica)
        wanted = {name for adapter in adapters.wanted(endpoint).wanted for name in adapter.integration}
        return self._credentials.by_kind(endpoint.namespace, [name for name in names if name in wanted])

    def _declare(self, replica: messages.ReplicaIdentity, spec: specs.ReplicaSpec) -> records.Endpoint:
        endpoint, fields = declared.row_of(spec, replica.application, time.time())
        try:
            known = self._store.endpoint(endpoint.namespace, endpoint.name)
        except errors.NotFound:
            self._store.add_namespace(endpoint.namespace, time.time())
            created = self._store.create_endpoint(endpoint, fields, None, {})
            self._store.note_endpoint(created.id, {"serving": created.target})
            self._reconciler.hint(created.id)
            return self._store.endpoint(created.namespace, created.name)
        if known.source != "declarative":
            raise errors.AlreadyExists(f"{known.path} was created over the API: choose another name in the Serve configuration.")
        if known.spec != endpoint.spec:
            self._store.update_endpoint(known.id, {"spec": endpoint.spec})
            self._reconciler.hint(known.id)
        return known

    def _report(self, replica: messages.ReplicaIdentity, phase: messages.Phase) -> None:
        phase = dataclasses.replace(phase, member=replica.member)
        previous = self._board.note_phase(replica, phase)
        endpoint = self._endpoint_of(replica.application)
        if endpoint is None or not self._worth_an_event(replica, previous, phase):
            return
        parsed = specs.parse_application_name(replica.application)
        event = records.Event(
            endpoint.id,
            phase.at,
            phase.name,
            phase.sentence,
            "error" if phase.name in ("failed", "adapter_failed") else "info",
            parsed[2] if parsed else endpoint.target,
            replica.label,
            phase.reason,
            {**phase.data, "member": phase.member} if phase.member else phase.data,
        )
        self._store.add_events([event])
        if phase.name == "ready" and phase.data.get("measured") and parsed:
            self._note_measured(endpoint, parsed[2], phase)
        self._reconciler.hurry()

    def _note_measured(self, endpoint: records.Endpoint, number: int, phase: messages.Phase) -> None:
        revision = next((row for row in self._store.revisions(endpoint.id) if row.number == number), None)
        found = measuring.measurement(revision, phase.data["measured"], phase.at) if revision else None
        if found is not None:
            self._store.put_measurement(found)

    def _worth_an_event(self, replica: messages.ReplicaIdentity, previous: messages.Phase | None, phase: messages.Phase) -> bool:
        """New phases are; of a phase's progress, one report in five seconds and the last one."""
        done = phase.data.get("bytes") is not None and phase.data.get("bytes") == phase.data.get("total")
        last = self._progress_noted.get(replica.id, 0.0)
        if previous == phase:
            return False
        same = previous is not None and (previous.name, previous.data.get("adapter")) == (phase.name, phase.data.get("adapter"))
        if same and not done and phase.at - last < PROGRESS_EVENT_EVERY_S:
            return False
        if phase.name in ("ready", "failed"):  # nothing further is on its way
            self._progress_noted.pop(replica.id, None)
        else:
            self._progress_noted[replica.id] = phase.at
        return True

    def _announce(self, announcement: messages.Announcement) -> messages.PromptPolicy:
        replica = announcement.replica
        endpoint = self._endpoint_of(replica.application)
        if endpoint is None:
            return messages.PromptPolicy()
        parsed = specs.parse_application_name(replica.application)
        row = records.Replica(
            id=replica.id,
            application=replica.application,
            endpoint_id=endpoint.id,
            revision=endpoint.target if endpoint.source == "declarative" or parsed is None else parsed[2],
            host=announcement.host,
            port=announcement.port,
            max_concurrency=announcement.max_concurrency,
            capabilities=announcement.capabilities,
            load_seconds=announcement.load_seconds,
            announced_at=time.time(),
        )
        if announcement.hardware is not None:
            self._service.note_hardware(endpoint.path, replica.id, announcement.hardware)
        news = self._board.note_asleep(replica, announcement.asleep)
        news = self._board.note_adapters(replica, announcement.adapters) or news
        if self._store.put_replica(row) or news:
            self._reconciler.hurry()
        return self._history.seen(replica, endpoint, row.revision)

    def _wake(self, path: str) -> None:
        namespace, _, name = path.partition("/")
        try:
            endpoint = self._store.endpoint(namespace, name)
        except errors.NotFound:
            return
        now = self._clock()
        self._board.touch(path, now)
        if endpoint.awake or endpoint.desired != "running":
            return
        event = records.Event(endpoint.id, now, "waking", "A request arrived: starting a replica.", revision=endpoint.target)
        self._store.note_endpoint(endpoint.id, {"awake": True}, [event])
        self._reconciler.start_now(endpoint)
        self._reconciler.hint(endpoint.id)

    def _endpoint_of(self, application: str) -> records.Endpoint | None:
        return declared.endpoint_of(self._store, application)

    def _known_endpoint(self, replica: messages.ReplicaIdentity) -> records.Endpoint:
        """Raises NotFound."""
        endpoint = self._endpoint_of(replica.application)
        if endpoint is None:
            raise errors.NotFound("There is no such endpoint any more.")
        return endpoint

    def _deploy_of(self, endpoint: records.Endpoint, revision: records.Revision) -> observation.Deploy:
        instances = hardware.instances(self._reconciler.cluster(), self._types())
        return admission.deploy(endpoint, revision, instances, self._settings)


Manager = serve.deployment(serve.ingress()(ManagerBody)).options(
    name="Manager",
    num_replicas=1,
    max_ongoing_requests=10_000,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=1.0,
    health_check_timeout_s=10.0,
    graceful_shutdown_timeout_s=3.0,
    graceful_shutdown_wait_loop_s=0.2,
)
"""Serve deployment of the manager; `app` is what `cluster.bootstrap` and serve_configs/ run."""

app = Manager.bind()
