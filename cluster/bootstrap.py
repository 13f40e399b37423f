"""Starts (or stops) Moorage's own Serve applications on a running Ray head: `python -m cluster.bootstrap [--stop]`.

A short-lived driver of `moorage up`: Serve keeps what it deploys. The environment of the head applies here too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Mapping

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.config import HTTPOptions, ProxyLocation

from cluster import manager
from cluster import spec as specs
from cluster.settings import Settings

READY_TIMEOUT_S = 120.0
GATEWAY = "gateway.deployment:Gateway"
OWN = ("manager", "gateway")
HEAD = "node:__internal_head__"
"""Ray's name for a resource that only the head node has."""


def start(settings: Settings) -> None:
    """Deploy the manager, then the gateway, and return when both run. Raises TimeoutError with Serve's own message."""
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="127.0.0.1", port=settings.serve_port),
    )
    module, _, name = GATEWAY.partition(":")
    gateway = getattr(importlib.import_module(module), name)
    place = dict.fromkeys(home_node(settings, ray.util.get_node_ip_address()), 0.001)
    _run(manager.Manager, "manager", "/manage", place)
    _run(gateway, "gateway", None, place)
    _wait(OWN)


def home_node(settings: Settings, here: str) -> tuple[str, ...]:
    """Resources of the one node that manager and gateway may run on: the one that has MOORAGE_HOME with the state in it.

    Started elsewhere, on a node that joined, they would begin with an empty home. That node is the head of a cluster of ours; on a
    cluster that somebody else started it is where `moorage up` was typed (address `here`), unless the state lies in a database that
    every node reaches: then any node will do.
    """
    if settings.address is None:
        return (HEAD,)
    return () if settings.database_url else (f"node:{here}",)


def stop(settings: Settings) -> None:
    """Drain every application and shut Serve down; on a cluster that somebody else started, only our own applications."""
    if settings.address is None:
        serve.shutdown()
        return
    ours = [name for name in serve.status().applications if name in OWN or specs.parse_application_name(name) is not None]
    for name in sorted(ours, key=OWN.__contains__, reverse=True):  # the manager first, so that it does not bring the others back
        serve.delete(name)


def _run(deployment: serve.Deployment, name: str, route_prefix: str | None, place: Mapping[str, float]) -> None:
    actor = {"num_cpus": 0, "resources": dict(place)}
    pinned = deployment.options(_internal=True, version=os.environ.get("MOORAGE_PLATFORM_VERSION", "1"), ray_actor_options=actor)
    serve.run_many([RunTarget(pinned.bind(), name=name, route_prefix=route_prefix)], wait_for_applications_running=False)


def _wait(names: tuple[str, ...]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        applications = serve.status().applications
        states = {name: applications[name].status.value if name in applications else "MISSING" for name in names}
        if all(state == "RUNNING" for state in states.values()):
            return
        if "DEPLOY_FAILED" in states.values():
            break
        time.sleep(0.1)
    messages = [f"{name}: {applications[name].message}" for name in names if name in applications]
    raise TimeoutError("the platform's applications did not start: " + " ".join(messages))


def main() -> int:
    """Connect to the head that MOORAGE_RAY_ADDRESS (or the settings) names, and start or stop."""
    parser = argparse.ArgumentParser(prog="python -m cluster.bootstrap")
    parser.add_argument("--stop", action="store_true", help="drain and shut down Ray Serve")
    arguments = parser.parse_args()
    settings = Settings()
    address = os.environ.get("MOORAGE_RAY_ADDRESS") or settings.address or f"{settings.node_address}:{settings.ray_port}"
    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="warning")
    if arguments.stop:
        stop(settings)
        return 0
    try:
        start(settings)
    except TimeoutError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - the command's answer to a person
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
