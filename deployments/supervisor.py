"""One replica: gets its model, runs its server, watches it, announces it, drains and stops it. Knows neither Serve nor an engine.

The Serve-facing class is `deployments.replica`; whether a failed start is tried again is decided by the reconciler.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import credentials, engine_kinds, errors, lora, messages, spec
from cluster.messages import Announcement, Bootstrap, LogLine, ReplicaIdentity
from deployments import adapter_files, adapters, diagnosis, hardware_use, metering, server_environment, sources, start_phases
from deployments.diagnosis import StartFailed
from deployments.engine import Engine, Launch, Site
from deployments.launcher import Launcher, Unfit
from deployments.manager_port import Manager, ManagerUnavailable
from deployments.measured import Measured
from deployments.node import Node, reserve_port
from deployments.prompt_shipping import PromptShipper
from deployments.reporter import Reporter
from deployments.server_client import Awake, NoAnswer, ServerClient, SmokeFailed, Stats
from deployments.server_log import ServerLog
from deployments.server_process import ServerProcess
from deployments.start_phases import StartPhases
from deployments.timing import Timing
from deployments.usage_shipping import Shipping

OUR_SECRETS = ("MOORAGE_ENGINE_SECRET", "MOORAGE_CONTROL_TOKEN")


GIVEN_UP_AFTER = 3
"""Failed checks in a row after which Serve replaces a replica: its server is not waited for then."""


class Unhealthy(Exception):
    """The server is dead or hangs."""


class Supervisor:
    """`start` returns when the server is ready and announced as far as the manager can be reached; `stop` drains and ends it."""

    def __init__(
        self,
        replica: spec.ReplicaSpec,
        identity: ReplicaIdentity,
        manager: Manager,
        node: Node,
        engine: Engine,
        *,
        on_crash: Callable[[], None],
        launcher: Launcher | None = None,
        timing: Timing = Timing(),
    ) -> None:
        """`on_crash` is called when the server ended unasked after it was ready, once the manager has been told.

        `launcher` forks the server where that can be; without one it is started.
        """
        self.replica = replica
        self.address: tuple[str, int] | None = None
        """(host, port) of the server once it runs."""
        self.process: ServerProcess | None = None
        self.last = Stats(0, 0, 0, 0.0, True, (), 0)
        """What the server said when it was last asked."""
        self._identity = identity
        self._manager = manager
        self._node = node
        self._engine = engine
        self._on_crash = on_crash
        self._launcher = launcher
        self._timing = timing
        self._reporter = Reporter(manager, identity)
        self._phases = StartPhases(engine.milestones, self._reporter.tell)
        self._measured = Measured()
        self._log = ServerLog(self._ship)
        self._usage = Shipping(manager, identity, node.usage, lambda line: self._log.add(line.encode()), retry_s=timing.retry)
        self._client: ServerClient | None = None
        self._resources = contextlib.ExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._model: Path | None = None
        self._adapters: adapters.Adapters | None = None
        self._idle_at = time.monotonic()
        self._ready = asyncio.Event()
        self._announced = asyncio.Event()
        self._asleep = False
        self._hardware: messages.HardwareUse | None = None
        self._news = asyncio.Event()
        self._stopping = self._hung = False
        self._failed_checks = 0

    async def start(self) -> None:
        """Brings the server up. On failure reports it, leaves nothing running and raises StartFailed."""
        began, up = time.monotonic(), False
        self._spawn(self._reporter.run())
        try:
            async with asyncio.timeout(self.replica.load_timeout_s):
                await self._bring_up()
            up = True
        except StartFailed as exc:
            await self._give_up(exc)
            raise
        except TimeoutError as exc:
            failure = StartFailed("LoadTimeout", f"Not ready within {self.replica.load_timeout_s:g} seconds.", permanent=False)
            await self._give_up(failure)
            raise failure from exc
        finally:
            if not up:  # a cancellation too leaves nothing running
                await self._clean_up()
        self._ready.set()
        self._spawn(self._watch_exit())
        self._spawn(self._announce(time.monotonic() - began))
        self._spawn(self._measure())
        if self._adapters is not None:
            self._spawn(self._adapters.follow(self._timing.retry))
        timeout = self.replica.typed_model.settings.system.sleep_timeout
        if timeout is not None:
            self._spawn(self._nap(timeout * 60))
        with contextlib.suppress(TimeoutError):  # the manager may be away: the server serves all the same
            await asyncio.wait_for(self._announced.wait(), self._timing.farewell)

    async def check(self) -> None:
        """Raises Unhealthy when the server is dead, does not answer, or has not moved for long with requests running."""
        self._failed_checks += 1
        await self._check()
        self._failed_checks = 0

    async def _check(self) -> None:
        if self.process is None or self._client is None or self.process.exited.is_set():
            raise Unhealthy("the server is not running")
        try:
            self.last = await self._client.stats()
        except NoAnswer as exc:
            raise Unhealthy("the server does not answer") from exc
        now = time.monotonic()
        if self.last.ongoing == 0:
            self._idle_at = now
        still = now - max(self._idle_at, self.last.steps_at)
        if still > self._engine.hang_after_s:
            message = f"The engine has not moved for {still:.0f} seconds with {self.last.ongoing} requests waiting for it."
            if not self._hung:
                self._reporter.tell("failed", reason="EngineHung", message=message)
            self._hung = True
            raise Unhealthy(message)

    async def load(self) -> float:
        """Running and waiting requests; the last known number when the server does not answer in time."""
        if self._client is not None and self._ready.is_set():
            with contextlib.suppress(NoAnswer):
                self.last = await self._client.stats()
        return float(self.last.ongoing)

    async def stop(self) -> None:
        """Drains and ends the server; within `drain_timeout_s` and a few seconds. Also right after a half-done start."""
        if self._stopping:
            return
        self._stopping = True
        if self._ready.is_set() and self.process is not None and not self.process.exited.is_set():
            self._reporter.tell("draining")
            with contextlib.suppress(ManagerUnavailable, TimeoutError, errors.MoorageError):
                await asyncio.wait_for(self._manager.withdraw(self._identity), self._timing.farewell)
            if self._failed_checks < GIVEN_UP_AFTER:
                await self._drain_and_end(self.process)
            else:  # a server that stands still finishes nothing: its requests are better tried elsewhere
                await self.process.kill()
            await self._usage.flush(self._timing.farewell)
            await self._reporter.flush(self._timing.farewell)
        await self._clean_up()

    async def _bring_up(self) -> None:
        bootstrap = await self._register()
        control = secrets.token_urlsafe(24)
        hidden = [*bootstrap.secrets.values(), *credentials.hidden(bootstrap.credentials)]
        self._log = ServerLog(self._ship, [*hidden, bootstrap.engine_secret, control])
        self._spawn(self._log.run())
        if engine_kinds.needs_model(self.replica.engine, self.replica.typed_model):
            self._spawn(self._prepare(bootstrap, control))
            self._model = await self._fetch(bootstrap)
        self._phases.begin(start_phases.STARTING)
        await self._start_server(bootstrap, control)
        await self._wait_until_ready()
        self._phases.begin("smoke_test")
        await self._smoke()
        await self._load_adapters(bootstrap)

    async def _register(self) -> Bootstrap:
        """Until the manager answers: without its secrets nothing can be started."""
        while True:
            try:
                return await self._manager.register(self._identity, self.replica.model_dump(mode="json"))
            except ManagerUnavailable:
                await asyncio.sleep(self._timing.retry)
            except errors.MoorageError as exc:
                raise StartFailed("NotWanted", exc.message, permanent=True) from exc

    async def _fetch(self, bootstrap: Bootstrap) -> Path:
        self._phases.begin("downloading")

        def progress(done: int, total: int | None) -> None:
            self._reporter.tell("downloading", data={"bytes": done, "total": total})

        try:
            return await self._bring(bootstrap, self.replica.model, bootstrap.credentials, progress)
        except sources.SourceError as exc:
            raise StartFailed(exc.reason, self._public(str(exc)), permanent=exc.permanent) from exc

    async def _bring(
        self,
        bootstrap: Bootstrap,
        model: Mapping[str, Any],
        found: credentials.ByKind,
        progress: Callable[[int, int | None], None],
        rules: sources.Rules | None = None,
    ) -> Path:
        """`found` are the credentials of the integrations that apply to this source."""
        own = {**self.replica.model.get("env", {}), **bootstrap.secrets, **credentials.flat(found)}
        return await sources.fetch(
            model,
            cache=self._node.models,
            allowed=self._node.model_paths,
            environment=self._node.source_environment(own),
            hub_endpoint=self._node.hub_endpoint,
            progress=progress,
            rules=rules,
        )

    async def _load_adapters(self, bootstrap: Bootstrap) -> None:
        """Before anyone is sent here: a replica that does not have an adapter yet would answer in another's voice."""
        assert self._client is not None
        model = self.replica.typed_model
        highest = lora.max_rank(model)

        async def fetch(adapter: messages.Adapter) -> Path:
            source = {"repository": adapter.repository, "revision": adapter.revision or None}
            found = {**bootstrap.credentials, **await self._integrations(adapter)}
            return await self._bring(bootstrap, source, found, lambda done, total: None, sources.AdapterRules())  # noqa: ARG005

        def check(adapter: messages.Adapter, folder: Path) -> None:
            lora.check_folder(adapter.name, folder, highest)
            adapter_files.check(adapter.name, folder, self._model)

        def tell(kind: str, name: str, reason: str, message: str) -> None:
            self._reporter.tell(kind, reason=reason, message=message, data={"adapter": name})

        hands = adapters.Hands(fetch, check, tell, self._news.set, self._public)
        self._adapters = adapters.Adapters(self._manager, self._identity, self._client, hands, enabled=lora.enabled(model))
        if bootstrap.adapters.wanted:
            self._phases.begin("adapters")
        try:
            await self._adapters.settle(bootstrap.adapters)
        except NoAnswer as exc:
            raise StartFailed("EngineExited", "The server stopped answering while its adapters were loaded.", permanent=False) from exc

    async def _integrations(self, adapter: messages.Adapter) -> credentials.ByKind:
        """The adapter's own credentials, which stand in the place of the model's of that kind. Raises SourceError."""
        if not adapter.integration:
            return {}
        try:
            return await self._manager.integrations(self._identity, adapter.integration)
        except ManagerUnavailable as exc:
            raise sources.SourceError("its credentials could not be asked for just now", "SourceUnreachable", permanent=False) from exc
        except errors.MoorageError as exc:
            raise sources.SourceError(exc.message.rstrip("."), "AccessDenied") from exc

    async def _prepare(self, bootstrap: Bootstrap, control: str) -> None:
        """The launcher, where there is none yet, imports the engine while the model is fetched."""
        launch = self._engine.prepare(
            self.replica, Site(self._node.address, 0, None, self._node.home, self._node.cache, ray=self._node.ray)
        )
        if self._launcher is not None and self._node.forks(launch, self.replica.placement):
            with contextlib.suppress(Unfit):  # told when the server is started
                await self._launcher.begin(launch, self._environment(launch, bootstrap, control), {*bootstrap.secrets, *OUR_SECRETS})

    async def _start_server(self, bootstrap: Bootstrap, control: str) -> None:
        held = self._resources.enter_context(reserve_port(self._node.address))
        folder = self._resources.enter_context(self._node.replica_folder(self._identity.id))
        host, port = held.getsockname()[:2]
        self._node.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        site = Site(host, port, self._model, folder, self._node.cache, self._node.media_hosts, self._node.ray)
        try:
            launch = self._engine.launch(self.replica, site)
        except errors.InvalidRequest as exc:
            raise StartFailed("InvalidSettings", exc.message, permanent=True) from exc
        environment = self._environment(launch, bootstrap, control) | self._usage_environment()
        self.process = await self._start_process(launch, environment, {*bootstrap.secrets, *OUR_SECRETS}, folder)
        self._client = ServerClient(host, port, bootstrap.engine_secret, control)
        self.address = (host, port)

    async def _start_process(self, launch: Launch, environment: Mapping[str, str], private: Collection[str], folder: Path) -> ServerProcess:
        if self._launcher is not None and self._node.forks(launch, self.replica.placement):
            try:
                return await self._launcher.start(launch, environment, private, self._on_line, folder)
            except Unfit as exc:
                self._log.add(f"INFO moorage: started without the launcher: {exc}".encode())
        return ServerProcess.start(launch.command, environment, self._on_line, folder)

    def _usage_environment(self) -> dict[str, str]:
        """Where the server is to record what is used; from now on that is delivered."""
        folder = self._usage.open()
        self._spawn(self._usage.run())
        self._spawn(self._usage.adopt())
        return {} if folder is None else {metering.FOLDER: str(folder)}

    def _on_line(self, line: bytes) -> None:
        self._log.add(line)
        if not self._ready.is_set():
            text = line.decode(errors="replace")
            self._phases.line(text)
            self._measured.line(text)

    def _environment(self, launch: Launch, bootstrap: Bootstrap, control: str) -> dict[str, str]:
        ours = dict(zip(OUR_SECRETS, (bootstrap.engine_secret, control), strict=True)) | {"MOORAGE_REPLICA": self._identity.id}
        # Credentials of integrations are for a program of the user's, which may bring models itself; no engine of ours needs them.
        found = credentials.flat(bootstrap.credentials) if launch.runs_program else {}
        return server_environment.made(self._node, self.replica, launch, {**bootstrap.secrets, **found}) | ours

    async def _wait_until_ready(self) -> None:
        assert self.process is not None and self._client is not None
        pause = self._timing.poll_first
        while not await self._client.ready():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.exited.wait(), pause)
            if self.process.exited.is_set():
                raise self._diagnosed()
            pause = min(pause * 1.3, self._timing.poll_longest)
        self.last = await self._client.stats()
        if not self.last.connected:
            raise StartFailed("EngineNotConnected", "The engine came up without Moorage's plugin: see its log.", permanent=False)

    async def _smoke(self) -> None:
        assert self.process is not None and self._client is not None
        try:
            await self._client.smoke(self.last.tasks, self._timing.smoke)
        except SmokeFailed as exc:
            raise StartFailed("SmokeTestFailed", self._public(str(exc)), permanent=False) from exc
        except NoAnswer as exc:
            if self.process.exited.is_set():
                raise self._diagnosed() from exc
            raise StartFailed("SmokeTestFailed", "The first request was not answered.", permanent=False) from exc

    def _diagnosed(self) -> StartFailed:
        assert self.process is not None and self.process.code is not None
        found = diagnosis.diagnose(self.process.code, self._log.tail())
        return StartFailed(found.reason, self._public(found.message), permanent=found.permanent)

    def _public(self, message: str) -> str:
        """`message` without secrets and without paths of this node."""
        if self._model is not None:
            message = message.replace(str(self._model), self.replica.model.get("repository", "the model"))
        return self._log.redact(message).replace(str(self._node.home), "~")

    async def _announce(self, load_seconds: float) -> None:
        """For ever, as a sign of life: the manager may have been away, or may forget."""
        assert self.address is not None and self._client is not None
        prompts = PromptShipper(self._manager, self._identity, self._client)
        self._spawn(prompts.run())
        phases = self._phases.seconds()
        measured = {"measured": self._measured.found} if self._measured.found else {}
        announcement = Announcement(
            replica=self._identity,
            host=self.address[0],
            port=self.address[1],
            max_concurrency=self.last.max_concurrency,
            capabilities=self.last.tasks,
            load_seconds=load_seconds,
        )
        while True:
            try:
                self._news.clear()
                states = self._adapters.states if self._adapters is not None else ()
                told = dataclasses.replace(announcement, asleep=self._asleep, adapters=states, hardware=self._hardware)
                prompts.order(await self._manager.announce(told))
            except (ManagerUnavailable, errors.MoorageError):
                await asyncio.sleep(self._timing.retry)
                continue
            if not self._announced.is_set():
                self._reporter.tell("ready", data={"seconds": round(load_seconds, 3), **phases, **measured})
                self._announced.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._timing.heartbeat)

    async def _measure(self) -> None:
        """For ever: looks at what the server uses; the next announcement tells it."""
        assert self.process is not None
        claim = self.replica.placement
        gpus = await asyncio.to_thread(hardware_use.gpus_of, self._node.environment, claim.gpus)
        meter = hardware_use.HardwareMeter(self.process.pid, claim.cpus, gpus)
        while True:
            self._hardware = await asyncio.to_thread(meter.look, time.time())
            await asyncio.sleep(self._timing.heartbeat)

    async def _nap(self, idle_s: float) -> None:
        """For ever: puts the engine to sleep when it has been idle for so long, and tells when it woke."""
        assert self._client is not None
        while True:
            await asyncio.sleep(min(self._timing.nap_poll, idle_s / 4))
            try:
                seen = await self._client.stats()
                if not seen.asleep and seen.idle_s >= idle_s and not self._stopping:
                    seen = await self._client.sleep(self._timing.nap)
            except (NoAnswer, Awake):
                continue
            if seen.asleep != self._asleep:
                self._asleep = seen.asleep
                data = {} if seen.asleep else {"seconds": round(seen.woke_in_s, 3)}
                self._reporter.tell("sleeping" if seen.asleep else "awake", data=data)
                self._news.set()

    async def _watch_exit(self) -> None:
        """Any exit not asked for is a crash, whatever its code: vLLM ends with 0 when its engine core dies."""
        assert self.process is not None
        await self.process.exited.wait()
        if self._stopping:
            return
        failure = self._diagnosed()
        self._reporter.tell("failed", reason=messages.CRASHED, message=failure.message)
        await self._last_words()
        self._on_crash()

    async def _drain_and_end(self, process: ServerProcess) -> None:
        """Requests that are not done in time are cut off, when what they have used is recorded."""
        assert self._client is not None
        try:
            await asyncio.wait_for(self._drain(), self.replica.drain_timeout_s)
            await process.stop(self._timing.grace)
        except TimeoutError:
            with contextlib.suppress(NoAnswer):
                await self._client.settle()
            await process.kill()

    async def _drain(self) -> None:
        """Until nothing has been in flight for a while; requests may still arrive until the edge has seen /health."""
        assert self._client is not None and self.process is not None
        quiet_since: float | None = None
        while not self.process.exited.is_set():
            try:
                busy = (await self._client.drain()).inflight > 0
            except NoAnswer:
                busy = True
            now = time.monotonic()
            quiet_since = None if busy else quiet_since or now
            if quiet_since is not None and now - quiet_since >= self._timing.quiet:
                return
            await asyncio.sleep(0.1)

    async def _give_up(self, failure: StartFailed) -> None:
        self._reporter.tell("failed", reason=failure.reason, message=failure.message, permanent=failure.permanent)
        if self.process is not None:
            await self.process.kill()
        await self._last_words()

    async def _last_words(self) -> None:
        await self._usage.flush(self._timing.farewell)
        self._usage.close()
        await self._reporter.flush(self._timing.farewell)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._log.flush(), self._timing.farewell)

    async def _clean_up(self) -> None:
        if self.process is not None:
            await self.process.kill()
        if self._client is not None:
            await self._client.close()
        if self._adapters is not None:
            self._adapters.stop()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._usage.close()
        self._resources.close()

    async def _ship(self, lines: Sequence[LogLine]) -> None:
        with contextlib.suppress(ManagerUnavailable):  # lines are worth less than a replica that waits
            await self._manager.logs(self._identity, lines)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(coroutine))
