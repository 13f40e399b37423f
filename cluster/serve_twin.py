"""The in-memory twin of the Serve port, for tests of the reconciler: a cluster whose replicas start when told to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from typing import Any

from cluster import errors, observation
from cluster import spec as specs
from cluster.model_facts import Facts


class ServeTwin:
    """observation.Serve without Ray. `deploy` puts `target` replicas into `starting`; the test moves them on."""

    def __init__(self, nodes: tuple[observation.Node, ...] = (observation.Node("node", "127.0.0.1", 8, 8),)) -> None:
        self.nodes = nodes
        self.applications: dict[str, observation.Application] = {}
        self.calls: list[tuple[str, str]] = []
        self.down = False
        """True: every call raises, as when the Serve controller is away."""
        self.models: dict[str, Facts] = {}
        """What a look at a repository finds; others cannot be reached."""
        self._ids = (f"replica{number}" for number in itertools.count(1))

    def observe(self) -> observation.Cluster:
        """The applications as they are now."""
        self._answer()
        return observation.Cluster(dict(self.applications), self.nodes)

    def deploy(self, wanted: observation.Deploy) -> None:
        """Create it, or change its bounds; a change of spec or restarts replaces the replicas."""
        self._answer()
        name = wanted.spec.application
        self.calls.append(("deploy", name))
        known = self.applications.get(name)
        replicas = tuple(replica for part in wanted.parts for replica in self._replicas(part, known))
        targets = {part.spec.member: max(1, part.minimum) for part in wanted.parts}
        self.applications[name] = observation.Application(
            name, "deploying", replicas=replicas, target=sum(targets.values()), targets=targets, deployed=wanted
        )

    def _replicas(self, wanted: observation.Deploy, known: observation.Application | None) -> tuple[observation.Replica, ...]:
        target, member = max(1, wanted.minimum), wanted.spec.member
        before = known.deployed.parts if known is not None and known.deployed is not None else ()
        same = any((part.spec, part.restarts) == (wanted.spec, wanted.restarts) for part in before)
        kept = tuple(replica for replica in known.replicas if replica.member == member)[:target] if known is not None and same else ()
        return kept + tuple(observation.Replica(next(self._ids), "starting", member=member) for _ in range(target - len(kept)))

    def remove(self, application: str) -> None:
        """Gone at once."""
        self._answer()
        self.calls.append(("remove", application))
        self.applications.pop(application, None)

    def prepare(self, node: str, spec: specs.ReplicaSpec) -> None:
        """Noted."""
        self._answer()
        self.calls.append(("prepare", f"{node} {spec.application}"))

    def survey(self, model: Mapping[str, Any], secrets: Mapping[str, str], wait_s: float) -> Facts:  # noqa: ARG002
        """From `models`."""
        self._answer()
        found = self.models.get(model["repository"])
        if found is None:
            raise errors.Unavailable(f"Nobody could look at {model['repository']}.")
        return found

    def spare(self, node: str, seconds: float) -> None:  # noqa: ARG002
        """Noted."""
        self._answer()
        self.calls.append(("spare", node))

    def loads(self, application: str, members: Collection[str] = ("",)) -> list[float]:
        """Idle replicas."""
        self._answer()
        known = self.applications.get(application)
        return [0.0 for replica in known.replicas if replica.state == "running" and replica.member in members] if known else []

    def place(self, application: str, node: str = "node") -> None:
        """All replicas get a place."""
        self._each(application, node=node, waiting=False)

    def run(self, application: str, member: str | None = None) -> tuple[str, ...]:
        """All replicas (of one member) run; returns the ids of all."""
        self._each(application, member, node="node", state="running", waiting=False)
        if all(replica.state == "running" for replica in self.applications[application].replicas):
            self.applications[application] = dataclasses.replace(self.applications[application], status="running")
        return tuple(replica.id for replica in self.applications[application].replicas)

    def starve(self, application: str) -> None:
        """Nothing has room for its replicas."""
        self._each(application, node=None, waiting=True)

    def fail(self, application: str, message: str = "") -> None:
        """Serve gave the application up."""
        self.applications[application] = dataclasses.replace(self.applications[application], status="failed", message=message, replicas=())

    def _each(self, application: str, member: str | None = None, **changes: object) -> None:
        known = self.applications[application]
        replicas = tuple(
            dataclasses.replace(replica, **changes) if member in (None, replica.member) else replica  # type: ignore[arg-type]
            for replica in known.replicas
        )
        self.applications[application] = dataclasses.replace(known, replicas=replicas)

    def _answer(self) -> None:
        if self.down:
            raise errors.Unavailable("Ray Serve does not answer at the moment.")
