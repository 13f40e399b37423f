"""The environment of a server: what of the node's it inherits, the endpoint's own variables, and ours, which nothing replaces."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import spec
from deployments.engine import PROGRAM_PREFIX, Launch
from deployments.node import Node


def made(node: Node, replica: spec.ReplicaSpec, launch: Launch, secret: Mapping[str, str]) -> dict[str, str]:
    """Of a server. What comes later wins: the endpoint's own variables cannot replace ours."""
    own = {**replica.model.get("env", {}), **secret}
    if launch.runs_program:
        own = {f"{PROGRAM_PREFIX}{name}": value for name, value in own.items()}
    return {
        **node.server_environment(),
        **own,
        **launch.environment,
        "MOORAGE_MODEL_ID": replica.model.get("repository", ""),
        "MOORAGE_MODEL_REVISION": replica.model.get("revision") or "",
        "MOORAGE_TASK": replica.task,
        "MOORAGE_ENDPOINT": f"{replica.namespace}/{replica.endpoint}",
        "MOORAGE_MEMBER": replica.member,
    }
