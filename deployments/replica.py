"""The Serve deployment's plain body: turns Serve's calls into the supervisor's. Options and decorator are the adapter's.

One replica is one actor; it imports no engine. Its bytes do not travel through Serve.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve

from cluster import spec
from cluster.messages import ReplicaIdentity
from deployments import engines, ray_executor
from deployments.launcher import Launcher
from deployments.manager_port import ServeManager
from deployments.node import Node
from deployments.supervisor import Supervisor


class Replica:
    """Serve awaits `__init__` (ready when it returns) and `__del__` (drained when it returns)."""

    async def __init__(self, spec_fields: dict[str, Any], *members: Any) -> None:  # type: ignore[misc]  # noqa: ARG002
        """`spec_fields` is ReplicaSpec.model_dump(). Raises StartFailed, after the manager has been told.

        Serve awaits it, and hands a primary member the handles of the other `members`, which it has no use for.
        """
        node = dataclasses.replace(Node.from_environment(os.environ), ray=ray_executor.environment(os.environ))
        identity = _identity(node, str(spec_fields.get("member", "")))
        replica = spec.ReplicaSpec.model_validate({**spec_fields, "application": identity.application})
        launcher = Launcher(node.launchers, os.environ, raylet=os.getppid())
        engine = engines.named(replica.engine)
        self._supervisor = Supervisor(replica, identity, ServeManager(), node, engine, on_crash=_end_actor, launcher=launcher)
        await self._supervisor.start()

    async def check_health(self) -> None:
        """Raises when the server is dead or hangs; three times in a row make Serve replace this replica."""
        await self._supervisor.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by the application's autoscaling policy."""
        return {"engine_ongoing": await self._supervisor.load()}

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Light settings, changed without a restart; none concerns the replica yet."""

    async def __del__(self) -> None:
        """Drains. Serve also calls this on an object whose `__init__` was cut short."""
        supervisor = getattr(self, "_supervisor", None)
        if supervisor is not None:
            await supervisor.stop()


def _identity(node: Node, member: str) -> ReplicaIdentity:
    context = serve.get_replica_context()
    return ReplicaIdentity(
        application=context.app_name,
        id=context.replica_tag,
        node=ray.get_runtime_context().get_node_id(),
        host=node.address,
        member=member,
    )


def _end_actor() -> None:
    """Serve notices the end of the actor at its next look; raising in check_health would take three."""
    os._exit(1)
