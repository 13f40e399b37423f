"""Ray Serve's deployment options that follow from a ReplicaSpec, as plain data: the same for endpoints of the API and of Serve files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cluster import spec as specs

NAME = "engine"
"""Of the one deployment in an endpoint's application; a member's is `engine-<member>`."""
CONSTRUCTOR_ATTEMPTS = 3
DRAIN_EXTRA_S = 15.0
"""Serve's bound covers the whole of the replica's own draining, which stops by itself a little earlier."""


def name(member: str) -> str:
    """A member's deployment; that of an endpoint without members for ''."""
    return f"{NAME}-{member}" if member else NAME


def member(deployment: str) -> str:
    """The member whose deployment that is."""
    return deployment.removeprefix(NAME).removeprefix("-")


def options(spec: specs.ReplicaSpec, *, restarts: int = 0) -> dict[str, Any]:
    """Placement, health, draining and the pinned version; scaling is the caller's."""
    placement = spec.placement
    bundles: list[dict[str, float]] = [dict(bundle) for bundle in placement.bundles]
    if not bundles:
        bundles = [{"CPU": placement.cpus, **({"GPU": float(placement.gpus)} if placement.gpus else {})}]
    if placement.accelerator_type:
        kind = {f"accelerator_type:{placement.accelerator_type}": 0.001}
        bundles = [{**bundle, **kind} if bundle.get("GPU") else bundle for bundle in bundles]
    return {
        "name": name(spec.member),
        "version": version(spec, restarts),
        # Of several bundles the first one's GPU belongs to the engine's own worker, so the replica's actor may not claim it.
        "ray_actor_options": {"num_cpus": placement.cpus, "num_gpus": placement.gpus if len(bundles) == 1 else 0},
        "placement_group_bundles": bundles,
        "placement_group_strategy": placement.strategy,
        "max_ongoing_requests": 1000,
        "max_surge_percent": 100,
        "health_check_period_s": 1.0,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": spec.drain_timeout_s + DRAIN_EXTRA_S,
        "max_constructor_retry_count": CONSTRUCTOR_ATTEMPTS,
    }


def version(spec: specs.ReplicaSpec, restarts: int) -> str:
    """Hash of all that a running replica cannot take over without a restart."""
    # Without a member the hash is what it was before there were members: an upgrade must not replace replicas.
    heavy = spec.model_dump(mode="json", exclude={"scaling"} if spec.member else {"scaling", "member"})
    text = json.dumps([heavy, restarts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scaling(minimum: int, maximum: int, target_concurrency: float) -> dict[str, Any]:
    """Fields of Serve's AutoscalingConfig, but for the policy. Zero replicas are the manager's business, not Serve's."""
    return {
        "min_replicas": max(1, minimum),
        "max_replicas": max(1, maximum),
        "target_ongoing_requests": target_concurrency,
        "look_back_period_s": 3.0,
        "metrics_interval_s": 0.5,
        "upscale_delay_s": 1.0,
        "downscale_delay_s": 60.0,
    }
