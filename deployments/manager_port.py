"""The replica's port to the manager: what it reports and asks, over a Serve handle, and an in-memory twin.

One attempt per call with a deadline; who retries, and for how long, is the caller's business.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray.exceptions
from ray import serve
from ray.serve.exceptions import RayServeException

from cluster import errors
from cluster.credentials import ByKind
from cluster.messages import Adapters, Announcement, Bootstrap, LogLine, Phase, Prompt, PromptPolicy, ReplicaIdentity, Usage

DEADLINE_S = 10.0
HOLD_S = 30.0
"""How long the manager keeps a question that it has nothing new to answer to."""


class ManagerUnavailable(Exception):
    """The manager did not answer; it may later."""


class Manager(Protocol):
    """Every call raises ManagerUnavailable when the manager does not answer, and cluster.errors where it refuses."""

    async def register(self, identity: ReplicaIdentity, spec: Mapping[str, Any]) -> Bootstrap:
        """This replica exists; gives what may not lie in Serve's metadata. `spec` is ReplicaSpec.model_dump()."""
        ...

    async def report(self, identity: ReplicaIdentity, phase: Phase) -> None:
        """A step in the replica's life."""
        ...

    async def announce(self, announcement: Announcement) -> PromptPolicy:
        """The server is ready. Repeated as a sign of life; a repetition changes nothing. Gives which prompts are to be kept."""
        ...

    async def adapters(self, identity: ReplicaIdentity, seen: Adapters) -> Adapters:
        """What adapters the endpoint has, as soon as that is not `seen`; `seen` after HOLD_S at the latest."""
        ...

    async def integrations(self, identity: ReplicaIdentity, names: Sequence[str]) -> ByKind:
        """The variables of these integrations as they are now, for an adapter that names them."""
        ...

    async def withdraw(self, identity: ReplicaIdentity) -> None:
        """The server takes no new requests from now on."""
        ...

    async def logs(self, identity: ReplicaIdentity, lines: Sequence[LogLine]) -> None:
        """Lines of the server's output."""
        ...

    async def prompts(self, identity: ReplicaIdentity, prompts: Sequence[Prompt]) -> None:
        """What clients sent and got, of an endpoint that wants it kept."""

    async def usage(self, identity: ReplicaIdentity, records: Sequence[Usage]) -> Sequence[str]:
        """What requests used. They are stored when this returns; a record that is told again changes nothing.

        Gives those of their keys whose use counts against no limit in tokens or money now.
        """
        ...


class ServeManager:
    """The real one: the handle of deployment `Manager` of the Serve application `manager`."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._handle: Any = None

    async def register(self, identity: ReplicaIdentity, spec: Mapping[str, Any]) -> Bootstrap:
        """See Manager."""
        bootstrap: Bootstrap = await self._call("register", identity, dict(spec))
        return bootstrap

    async def report(self, identity: ReplicaIdentity, phase: Phase) -> None:
        """See Manager."""
        await self._call("report", identity, phase)

    async def announce(self, announcement: Announcement) -> PromptPolicy:
        """See Manager."""
        policy: PromptPolicy | None = await self._call("announce", announcement)
        return policy or PromptPolicy()  # an older manager answers nothing

    async def adapters(self, identity: ReplicaIdentity, seen: Adapters) -> Adapters:
        """See Manager."""
        found: Adapters = await self._call("adapters", identity, seen, deadline_s=HOLD_S + self._deadline_s)
        return found

    async def integrations(self, identity: ReplicaIdentity, names: Sequence[str]) -> ByKind:
        """See Manager."""
        found: ByKind = await self._call("integrations", identity, list(names))
        return found

    async def withdraw(self, identity: ReplicaIdentity) -> None:
        """See Manager."""
        await self._call("withdraw", identity)

    async def logs(self, identity: ReplicaIdentity, lines: Sequence[LogLine]) -> None:
        """See Manager."""
        await self._call("logs", identity, list(lines))

    async def prompts(self, identity: ReplicaIdentity, prompts: Sequence[Prompt]) -> None:
        """See Manager."""
        await self._call("prompts", identity, list(prompts))

    async def usage(self, identity: ReplicaIdentity, records: Sequence[Usage]) -> Sequence[str]:
        """See Manager."""
        unlimited: Sequence[str] | None = await self._call("usage", identity, list(records))
        return unlimited or ()  # an older manager answers nothing

    async def _call(self, method: str, *arguments: object, deadline_s: float | None = None) -> Any:
        try:
            return await asyncio.wait_for(self._remote(method, *arguments), deadline_s or self._deadline_s)
        except errors.MoorageError:
            raise
        except (TimeoutError, RayServeException, ray.exceptions.RayError) as exc:
            raise ManagerUnavailable(f"{method}: {type(exc).__name__}") from exc

    async def _remote(self, method: str, *arguments: object) -> Any:
        if self._handle is None:
            # Unchecked: the check is a blocking call, and a manager that is not there yet shows as the deadline passing.
            self._handle = serve.get_deployment_handle("Manager", "manager", _check_exists=False)
        return await getattr(self._handle, method).remote(*arguments)


class MemoryManager:
    """The twin: keeps what it is told. `reachable = False` makes every call raise ManagerUnavailable."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self.reachable = True
        self.wanted = bootstrap.adapters
        self._ordered = asyncio.Event()
        self.registered: list[tuple[ReplicaIdentity, Mapping[str, Any]]] = []
        self.phases: list[Phase] = []
        self.announcements: list[Announcement] = []
        self.withdrawn: list[ReplicaIdentity] = []
        self.lines: list[LogLine] = []
        self.policy = PromptPolicy()
        """What every announcement is answered with."""
        self.prompts_kept: list[Prompt] = []
        self.kept: dict[str, ByKind] = {}
        """What `integrations` finds, by name."""
        self.used: list[tuple[ReplicaIdentity, Usage]] = []
        """As they were told: the same record twice is there twice."""
        self.unlimited: set[str] = set()
        """Keys without limits in tokens or money."""
        self.heard: set[str] = set()
        """Ids of the replicas that said anything."""

    async def register(self, identity: ReplicaIdentity, spec: Mapping[str, Any]) -> Bootstrap:
        """See Manager."""
        self._reach(identity)
        self.registered.append((identity, spec))
        return dataclasses.replace(self.bootstrap, adapters=self.wanted)

    async def report(self, identity: ReplicaIdentity, phase: Phase) -> None:
        """See Manager."""
        self._reach(identity)
        self.phases.append(phase)

    async def announce(self, announcement: Announcement) -> PromptPolicy:
        """See Manager."""
        self._reach(announcement.replica)
        self.announcements.append(announcement)
        return self.policy

    async def adapters(self, identity: ReplicaIdentity, seen: Adapters) -> Adapters:
        """See Manager."""
        self._reach(identity)
        while self.wanted == seen:
            await self._ordered.wait()
        return self.wanted

    def order(self, wanted: Adapters) -> None:
        """From now on the endpoint has these adapters; the replicas are told at once."""
        self.wanted = wanted
        self._ordered.set()
        self._ordered = asyncio.Event()

    async def integrations(self, identity: ReplicaIdentity, names: Sequence[str]) -> ByKind:
        """See Manager."""
        self._reach(identity)
        return {kind: dict(found) for name in names for kind, found in self.kept[name].items()}

    async def withdraw(self, identity: ReplicaIdentity) -> None:
        """See Manager."""
        self._reach(identity)
        self.withdrawn.append(identity)

    async def logs(self, identity: ReplicaIdentity, lines: Sequence[LogLine]) -> None:
        """See Manager."""
        self._reach(identity)
        self.lines.extend(lines)

    async def prompts(self, identity: ReplicaIdentity, prompts: Sequence[Prompt]) -> None:
        """See Manager."""
        self._reach(identity)
        self.prompts_kept.extend(prompts)

    async def usage(self, identity: ReplicaIdentity, records: Sequence[Usage]) -> Sequence[str]:
        """See Manager."""
        self._reach(identity)
        self.used.extend((identity, record) for record in records)
        return sorted({record.key for record in records} & self.unlimited)

    def _reach(self, identity: ReplicaIdentity) -> None:
        if not self.reachable:
            raise ManagerUnavailable("told to be away")
        self.heard.add(identity.id)
