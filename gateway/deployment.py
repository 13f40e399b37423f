"""The gateway as a Serve deployment: one Edge on this node, fed by the manager through handle calls.

The HAProxy it starts outlives it on purpose: a replacement adopts the running one, so neither a crash nor a redeploy of
this Python process drops a connection. `moorage down` ends HAProxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
from ray import serve

from cluster import messages, snapshot
from cluster.settings import Settings
from cluster.steady import SteadyClock
from gateway.config import EdgeConfig
from gateway.control import ControlLost
from gateway.edge import Edge

CALL_TIMEOUT_S = 10.0


class ManagerControl:
    """gateway.control.Control by handle calls to the manager application."""

    async def watch(self) -> AsyncIterator[snapshot.Snapshot | snapshot.Delta]:
        """The manager's stream of snapshots; raises ControlLost when the manager goes away."""
        with _translated():
            async for news in _manager().options(stream=True).watch.remote():
                yield news

    async def wake(self, path: str) -> None:
        """Start the endpoint `namespace/name`."""
        await self._call("wake", path)

    async def applied(self, gateway: str, version: int) -> None:
        """What HAProxy holds now."""
        await self._call("applied", gateway, version)

    async def report(self, activity: messages.Activity) -> None:
        """What this edge saw since the last report."""
        await self._call("activity", activity)

    async def request_lines(self, lines: messages.RequestLines) -> int:
        """Lines of the access log, for the request log."""
        received: int = await self._call("request_lines", lines)
        return received

    async def _call(self, method: str, *arguments: object) -> Any:
        with _translated():
            return await asyncio.wait_for(getattr(_manager(), method).remote(*arguments), CALL_TIMEOUT_S)


def _manager() -> Any:
    return serve.get_deployment_handle("Manager", "manager")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # whatever Ray, Serve, the manager or the unpickling of what it says raises: the edge serves on
        raise ControlLost(type(exc).__name__) from exc


def edge_config(settings: Settings) -> EdgeConfig:
    """The edge's part of the settings."""
    return EdgeConfig(
        home=settings.home,
        host=settings.host,
        port=settings.port,
        serve_port=settings.serve_port,
        slots=settings.slots,
        retry_connections=settings.retry_connections,
        body_limit=settings.body_limit_mb * 2**20,
    )


class GatewayBody:
    """What the Serve deployment wraps."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        # Gateways divide the limits among themselves, and are told apart by where they run.
        config = dataclasses.replace(edge_config(Settings()), name=ray.util.get_node_ip_address())
        self._edge = Edge(config, ManagerControl(), SteadyClock())
        await self._edge.start()
        self._running = asyncio.get_running_loop().create_task(self._edge.run())

    async def check_health(self) -> None:
        """Raises when the edge has stopped working: Serve then replaces this replica."""
        if self._running.done():
            raise RuntimeError("the edge has stopped") from self._running.exception()
        await self._edge.check_health()

    async def __del__(self) -> None:
        running = getattr(self, "_running", None)
        if running is not None:
            running.cancel()
            await self._edge.stop(keep_haproxy=True)


Gateway = serve.deployment(GatewayBody).options(
    name="Gateway",
    num_replicas=1,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=1.0,
    health_check_timeout_s=10.0,
    graceful_shutdown_timeout_s=5.0,
    graceful_shutdown_wait_loop_s=0.2,
)

app = Gateway.bind()
