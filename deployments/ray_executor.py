"""An engine that spans nodes: what the replica's actor hands its server so that vLLM's Ray executor uses the replica's own claim.

The server is no Ray worker: without this it would start a Ray of its own, or claim accelerators a second time.
"""

from __future__ import annotations

from collections.abc import Mapping

import ray
import ray.util
from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup

GROUP = "MOORAGE_PLACEMENT_GROUP"
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """For a server of this actor: where Ray is, how to be let in, and which placement group to use."""
    group = ray.util.get_current_placement_group()
    if group is None:
        return {}
    known = {name: inherited[name] for name in AUTHENTICATION if name in inherited}
    return {**known, "RAY_ADDRESS": ray.get_runtime_context().gcs_address, GROUP: group.id.hex()}


def adopt(inherited: Mapping[str, str]) -> None:
    """In the server: makes the placement group named in the environment the current one, where vLLM looks for it."""
    name = inherited.get(GROUP)
    if name:
        group = PlacementGroup(PlacementGroupID(bytes.fromhex(name)))
        ray.util.get_current_placement_group = lambda: group
