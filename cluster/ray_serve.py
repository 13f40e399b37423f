"""The Serve port on Ray Serve: the one module of the control plane that talks to Ray about endpoints.

What Ray Serve 2.60 makes necessary here: deployments are built under one lock (building is not thread-safe), the
deployment version is pinned to a hash of what the replicas' constructor takes (else every call restarts replicas, and a
changed argument under an equal version is silently not applied), states are read from the controller's raw details
(`serve.status()` is thirty times slower), and no call waits without a bound.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Collection, Mapping
from typing import Any

import grpc
import ray
from ray import PlacementGroupID, serve
from ray._private.grpc_utils import init_grpc_channel
from ray._private.state import available_resources_per_node
from ray.core.generated import node_manager_pb2, node_manager_pb2_grpc
from ray.exceptions import GetTimeoutError, RayError
from ray.serve.api import RunTarget
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import autoscaling, errors, observation, replica_options
from cluster import spec as specs
from cluster.model_facts import Facts

CALL_TIMEOUT_S = 30.0
LOADS_TIMEOUT_S = 5.0
SPARE_TIMEOUT_S = 5.0
REPLICA_CLASS = "deployments.replica:Replica"
PREPARE = "deployments.preparation:prepare"
SURVEY = "deployments.survey:survey"
SYSTEM_APPLICATIONS = frozenset({"manager", "gateway"})
STATUS: Mapping[str, str] = {
    "NOT_STARTED": "deploying",
    "DEPLOYING": "deploying",
    "DEPLOY_FAILED": "failed",
    "RUNNING": "running",
    "UNHEALTHY": "unhealthy",
    "DELETING": "deleting",
}
REPLICA_STATE: Mapping[str, str] = {
    "STARTING": "starting",
    "UPDATING": "running",
    "RECOVERING": "running",
    "RUNNING": "running",
    "STOPPING": "stopping",
    "PENDING_MIGRATION": "running",
}


class RayServe:
    """observation.Serve on the cluster that this process is connected to."""

    def __init__(self) -> None:
        self._building = threading.Lock()
        self._deployed: dict[str, observation.Deploy] = {}
        _plain_deployment()  # not while the first request for an endpoint at zero waits

    def observe(self) -> observation.Cluster:
        """One look at applications, replicas and nodes (0.1 s with 200 applications)."""
        try:
            controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            details = ray.get(controller.get_serve_instance_details.remote(), timeout=CALL_TIMEOUT_S)
            waiting = _waiting_replicas()
            nodes = tuple(_nodes())
        except (RayError, GetTimeoutError, ValueError) as exc:
            raise errors.Unavailable("Ray Serve does not answer at the moment.") from exc
        applications = {
            name: self._application(name, found, waiting)
            for name, found in details["applications"].items()
            if name not in SYSTEM_APPLICATIONS
        }
        for name in set(self._deployed) - set(applications):
            del self._deployed[name]
        return observation.Cluster(applications, nodes)

    def deploy(self, wanted: observation.Deploy) -> None:
        """Create the application or change it in place; returns once Serve has accepted it."""
        application = wanted.spec.application
        with self._building:
            try:
                target = RunTarget(bound(wanted), name=application, route_prefix=None)
                serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
            except RayError as exc:
                raise errors.Unavailable(f"Ray Serve did not accept {application}.") from exc
        self._deployed[application] = wanted

    def remove(self, application: str) -> None:
        """Start to drain and delete it."""
        self._deployed.pop(application, None)
        try:
            controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            ray.get(controller.delete_apps.remote([application]), timeout=CALL_TIMEOUT_S)
        except (RayError, GetTimeoutError, ValueError) as exc:
            raise errors.Unavailable(f"Ray Serve did not accept the removal of {application}.") from exc
        _give_up_waiting(application)

    def prepare(self, node: str, spec: specs.ReplicaSpec) -> None:
        """A Ray task on the node; nobody looks at what becomes of it, since a replica does the same for itself."""
        task = ray.remote(_named(PREPARE)).options(
            num_cpus=0, max_retries=0, name="moorage: prepare", scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )
        task.remote(spec.model_dump(mode="json"))

    def survey(self, model: Mapping[str, Any], secrets: Mapping[str, str], wait_s: float) -> Facts:
        """A Ray task, wherever there is room: it takes no resources, and is ended when it takes too long."""
        task = ray.remote(_named(SURVEY)).options(num_cpus=0, max_retries=0, name="moorage: survey")
        work = task.remote(dict(model), dict(secrets))
        try:
            found: Facts = ray.get(work, timeout=wait_s)
        except GetTimeoutError:
            ray.cancel(work, force=True)
            raise errors.Unavailable(f"The model could not be looked at within {wait_s:g} seconds.") from None
        except RayError as exc:
            raise errors.Unavailable("The model could not be looked at.") from exc
        return found

    def spare(self, node: str, seconds: float) -> None:
        """Asks the node's raylet for a worker of no job, which Ray gives to whatever needs one first."""
        found = next((row for row in ray.nodes() if row["NodeID"] == node and row["Alive"]), None)
        if found is None:
            return
        request = node_manager_pb2.PrestartWorkersRequest(num_workers=1, keep_alive_duration_secs=int(seconds))
        address = f"{found['NodeManagerAddress']}:{found['NodeManagerPort']}"
        try:
            with init_grpc_channel(address) as channel:
                node_manager_pb2_grpc.NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=SPARE_TIMEOUT_S)
        except grpc.RpcError as exc:
            raise errors.Unavailable(f"Node {found['NodeManagerAddress']} did not start a spare worker.") from exc

    def loads(self, application: str, members: Collection[str] = ("",)) -> list[float]:
        """Asks every running replica, in parallel, through Serve's broadcast."""
        try:
            names = [replica_options.name(member) for member in sorted(members)]
            handles = [serve.get_deployment_handle(name, application, _check_exists=False) for name in names]
            asked = [handle.broadcast("record_autoscaling_stats") for handle in handles]
            answers = [answer for one in asked for answer in one.results(timeout_s=LOADS_TIMEOUT_S)]
        except (RayError, RayServeException, GetTimeoutError, TimeoutError, RuntimeError) as exc:
            raise errors.Unavailable("The replicas do not answer at the moment.") from exc
        return [float(answer[autoscaling.METRIC]) for answer in answers]

    def _application(self, name: str, found: Mapping[str, Any], waiting: frozenset[str]) -> observation.Application:
        engines = {replica_options.member(key): row for key, row in found["deployments"].items()}
        targets = {member: row.get("target_num_replicas") or 0 for member, row in engines.items()}
        return observation.Application(
            name=name,
            status=STATUS.get(_word(found["status"]), "deploying"),  # type: ignore[arg-type]
            message=found.get("message") or next((row["message"] for row in engines.values() if row.get("message")), ""),
            replicas=tuple(_replica(one, member, waiting) for member, row in engines.items() for one in row.get("replicas", ())),
            target=sum(targets.values()),
            targets=targets,
            declarative=_word(found.get("source")).lower() == "declarative",
            deployed=self._deployed.get(name),
        )


def bound(wanted: observation.Deploy) -> Any:
    """An application's deployments, bound. The primary member's is what Serve calls the ingress: it is given handles of the others,
    for Serve deploys what the ingress is bound to; a deployment of its own for that would be one more idle process."""
    others = [deployment(other).bind(other.spec.model_dump(mode="json")) for other in wanted.others]
    return deployment(wanted).bind(wanted.spec.model_dump(mode="json"), *others)


def deployment(wanted: observation.Deploy) -> Any:
    """The Serve deployment of an endpoint or of one member: version pinned, autoscaled on the replicas' own counts."""
    spec = wanted.spec
    options = replica_options.options(spec, restarts=wanted.restarts)
    scaling = AutoscalingConfig(
        policy=AutoscalingPolicy(policy_function=autoscaling.policy),
        **replica_options.scaling(wanted.minimum, wanted.maximum, wanted.target_concurrency),
    )
    return _plain_deployment().options(_internal=True, autoscaling_config=scaling, **options)


@functools.cache
def _plain_deployment() -> Any:
    """What all are made from. Serve pickles its request router whole for each new one, which takes 15 ms; `options` copies that."""
    return serve.deployment(_named(REPLICA_CLASS))


def _named(path: str) -> Any:
    """What `module:name` says; the replicas' side is imported by name alone, when it is needed."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _replica(found: Mapping[str, Any], member: str, waiting: frozenset[str]) -> observation.Replica:
    state = REPLICA_STATE.get(_word(found["state"]), "starting")
    return observation.Replica(
        id=found["replica_id"],
        state=state,  # type: ignore[arg-type]
        node=found.get("node_id"),
        waiting=found["replica_id"] in waiting and not found.get("node_id"),
        member=member,
    )


def _waiting_replicas() -> frozenset[str]:
    """Ids of replicas whose placement group found no room (its name ends in `#<deployment>#<replica id>`)."""
    table: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return frozenset(
        group["name"].rsplit("#", 1)[-1]
        for group in table.values()
        if group.get("state") == "PENDING"
        and str(group.get("name", "")).startswith("SERVE_REPLICA::")
        and group.get("stats", {}).get("scheduling_state") in {"NO_RESOURCES", "INFEASIBLE", "QUEUED"}
    )


def _give_up_waiting(application: str) -> None:
    """Withdraws the claims of replicas that never found room: Serve would let them compete for it until their drain time is over."""
    for identity, group in placement_group_table().items():
        if group.get("state") == "PENDING" and str(group.get("name", "")).startswith(f"SERVE_REPLICA::{application}#"):
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(identity))))


def _nodes() -> list[observation.Node]:
    free = available_resources_per_node()
    return [_node(node, free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]


def _node(node: Mapping[str, Any], free: Mapping[str, float]) -> observation.Node:
    total = node["Resources"]
    kinds = [name.split(":", 1)[1] for name in total if name.startswith("accelerator_type:")]
    return observation.Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        cpus=total.get("CPU", 0.0),
        cpus_free=free.get("CPU", 0.0),
        gpus=int(total.get("GPU", 0)),
        gpus_free=free.get("GPU", 0.0),
        accelerator=kinds[0] if kinds else "",
        memory_bytes=int(total.get("memory", 0)),
    )


def _word(value: Any) -> str:
    """The name of one of Serve's string enums, which arrive as enums or as plain text."""
    return str(getattr(value, "value", value) or "")
