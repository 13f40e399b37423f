"""Gets a node ready for an endpoint at zero: its launcher imports the engine before the first request asks for it.

Runs as a Ray task on the node, so that it sees the environment that a replica there would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from cluster import spec
from deployments import engines, server_environment
from deployments.engine import Site
from deployments.launcher import Launcher, Unfit
from deployments.node import Node


def prepare(spec_fields: dict[str, Any]) -> None:
    """`spec_fields` is ReplicaSpec.model_dump(). Does not wait for the imports; where no launcher is to be used, nothing happens."""
    node = Node.from_environment(os.environ)
    replica = spec.ReplicaSpec.model_validate(spec_fields)
    launch = engines.named(replica.engine).prepare(replica, Site(node.address, 0, None, node.home, node.cache))
    if not node.forks(launch, replica.placement):
        return
    launcher = Launcher(node.launchers, os.environ, raylet=os.getppid())
    environment = server_environment.made(node, replica, launch, {})
    with contextlib.suppress(Unfit):
        asyncio.run(launcher.begin(launch, environment, ()))
