"""The in-memory twin of the Serve port, for tests of the reconciler: a cluster whose replicas start when told to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
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
        target = max(1, wanted.minimum)
        same = (
            known is not None
            and known.deployed is not None
            and (known.deployed.spec, known.deployed.restarts) == (wanted.spec, wanted.restarts)
        )
        replicas = known.replicas[:target] if known is not None and same else ()
        replicas += tuple(observation.Replica(next(self._ids), "starting") for _ in range(target - len(replicas)))
        self.applications[name] = observation.Application(name, "deploying", replicas=replicas, target=target, deployed=wanted)

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

    def loads(self, application: str) -> list[float]:
        """Idle replicas."""
        self._answer()
        known = self.applications.get(application)
        return [0.0 for replica in known.replicas if replica.state == "running"] if known else []

    def place(self, application: str, node: str = "node") -> None:
        """All replicas get a place."""
        self._each(application, node=node, waiting=False)

    def run(self, application: str) -> tuple[str, ...]:
        """All replicas run; returns their ids."""
        self._each(application, node="node", state="running", waiting=False)
        self.applications[application] = dataclasses.replace(self.applications[application], status="running")
        return tuple(replica.id for replica in self.applications[application].replicas)

    def starve(self, application: str) -> None:
        """Nothing has room for its replicas."""
        self._each(application, node=None, waiting=True)

    def fail(self, application: str, message: str = "") -> None:
        """Serve gave the application up."""
        self.applications[application] = dataclasses.replace(self.applications[application], status="failed", message=message, replicas=())

    def _each(self, application: str, **changes: object) -> None:
        known = self.applications[application]
        replicas = tuple(dataclasses.replace(replica, **changes) for replica in known.replicas)  # type: ignore[arg-type]
        self.applications[application] = dataclasses.replace(known, replicas=replicas)

    def _answer(self) -> None:
        if self.down:
            raise errors.Unavailable("Ray Serve does not answer at the moment.")
