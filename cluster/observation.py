"""What is seen of the cluster, and the Serve port through which it is seen and changed.

`cluster.ray_serve` implements the port on Ray Serve, `cluster.serve_twin` in memory. Nothing here imports Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

from cluster import spec as specs
from cluster.model_facts import Facts


@dataclasses.dataclass(frozen=True)
class Replica:
    """A replica as Serve lists it. `node` None while it has no place yet; `waiting`: because nothing has room for it."""

    id: str
    state: Literal["starting", "running", "stopping"]
    node: str | None = None
    waiting: bool = False
    member: str = ""
    """Which of the endpoint's members it is; '' = it has none."""


@dataclasses.dataclass(frozen=True)
class Deploy:
    """What to run: the replicas' spec, its restart counter and the replica bounds. Deploying an equal thing changes nothing.

    Of an endpoint with members this is the primary one, and `others` are the other ones: deployments of the same application.
    """

    spec: specs.ReplicaSpec
    minimum: int = 1
    maximum: int = 1
    target_concurrency: float = 8.0
    restarts: int = 0
    others: tuple[Deploy, ...] = ()

    @property
    def parts(self) -> tuple[Deploy, ...]:
        """Every deployment of the application, the primary one first."""
        return (self, *self.others)


@dataclasses.dataclass(frozen=True)
class Application:
    """A Serve application of ours, or one that a person deployed by hand (`declarative`). `target` counts wanted replicas."""

    name: str
    status: Literal["deploying", "running", "unhealthy", "failed", "deleting"]
    message: str = ""
    replicas: tuple[Replica, ...] = ()
    target: int = 0
    targets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """`target` by member; {} when it is not known apart."""
    declarative: bool = False
    deployed: Deploy | None = None
    """What this process deployed it with; None when that was another process (before a restart)."""

    @property
    def staying(self) -> tuple[Replica, ...]:
        """Its replicas but for those that are stopped, or are about to be because all of it is deleted."""
        return () if self.status == "deleting" else tuple(replica for replica in self.replicas if replica.state != "stopping")


@dataclasses.dataclass(frozen=True)
class Node:
    """Hardware of one live node: totals and what Ray has not promised to anyone. `accelerator` is Ray's type or ''."""

    id: str
    address: str
    cpus: float
    cpus_free: float
    gpus: int = 0
    gpus_free: float = 0
    accelerator: str = ""
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One look at everything."""

    applications: Mapping[str, Application] = dataclasses.field(default_factory=dict)
    nodes: tuple[Node, ...] = ()


class Serve(Protocol):
    """Calls are bounded in time, idempotent, and raise errors.Unavailable when Serve does not answer."""

    def observe(self) -> Cluster:
        """One look at applications, replicas and nodes."""

    def deploy(self, wanted: Deploy) -> None:
        """Create the application, or change it in place when only bounds differ. Does not wait for it to run."""

    def remove(self, application: str) -> None:
        """Start to drain and delete the application. Does not wait; unknown ones are ignored."""

    def prepare(self, node: str, spec: specs.ReplicaSpec) -> None:
        """Let a node get ready for replicas of this spec, of which there are none yet. Does not wait; may come to nothing."""

    def survey(self, model: Mapping[str, Any], secrets: Mapping[str, str], wait_s: float) -> Facts:
        """Let some node look at a model without bringing it. `model` is `Model.wire()`. Raises Unavailable after `wait_s`."""

    def spare(self, node: str, seconds: float) -> None:
        """Let a node start a process ahead, for the next replica there; it is kept for so long. Does not wait; may come to nothing."""

    def loads(self, application: str, members: Collection[str] = ("",)) -> list[float]:
        """Requests that each running replica's engine of these members runs or holds waiting right now; empty when there is none."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """Why a replica has no place: what one needs on one node, what the cluster has, and what is free on the best node."""

    gpus: int
    cpus: float
    total_gpus: int
    total_cpus: float
    free_gpus_best_node: float
    free_cpus_best_node: float
    accelerator: str = ""

    def sentence(self) -> str:
        """The three figures in words."""
        if self.gpus:
            kind = f"{self.accelerator} GPU" if self.accelerator else "GPU"
            return (
                f"needs {self.gpus} {kind}{'s' if self.gpus != 1 else ''} on one node; the cluster has {self.total_gpus} in all, "
                f"the best node has {self.free_gpus_best_node:g} free"
            )
        return (
            f"needs {self.cpus:g} CPU on one node; the cluster has {self.total_cpus:g} in all, "
            f"the best node has {self.free_cpus_best_node:g} free"
        )

    def wire(self) -> dict[str, Any]:
        """For `status.needs` of the API."""
        unit = ("gpus", self.gpus, self.total_gpus, self.free_gpus_best_node)
        if not self.gpus:
            unit = ("cpus", self.cpus, self.total_cpus, self.free_cpus_best_node)  # type: ignore[assignment]
        return {"resource": unit[0], "needed": unit[1], "total": unit[2], "freeOnBestNode": unit[3]}
