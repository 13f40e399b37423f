"""From an instance type and size to what a replica claims from Ray.

Never refuses: what may be asked for is `cluster.admission`'s to say, before a revision is made.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster import hardware
from cluster import spec as specs

USUAL_NODE = 8
"""GPUs that one node commonly has: what no present node can hold is awaited on one node up to this, on several beyond."""


def of(compute: specs.Compute, rows: Iterable[hardware.Instance]) -> specs.Placement:
    """The claim of one replica: one bundle where a node has as many GPUs, else one GPU per bundle, spread over few nodes."""
    count = count_of(compute)
    if compute.instance_type == hardware.CPU_TYPE:
        return specs.Placement(cpus=count, bundles=({"CPU": float(count)},))
    known = hardware.of_type(rows, compute.instance_type)
    common = {"cpus": 1, "gpus": count, "accelerator_type": known.accelerator_type if known else _ray_type(compute.instance_type)}
    if _on_one_node(count, known):
        return specs.Placement(**common, bundles=({"CPU": 1.0, "GPU": float(count)},))
    bundles = ({"CPU": 1.0, "GPU": 1.0}, *({"GPU": 1.0} for _ in range(count - 1)))
    return specs.Placement(**common, bundles=bundles, strategy="PACK")


def count_of(compute: specs.Compute) -> int:
    """`x4` -> 4."""
    return int(compute.instance_size.removeprefix("x"))


def _on_one_node(count: int, known: hardware.Instance | None) -> bool:
    if known is not None and count <= known.best_node:
        return True
    return count <= USUAL_NODE and (known is None or count > known.total)


def _ray_type(instance_type: str) -> str | None:
    """Ray's name of a GPU that no present node has: `nvidia-h200` -> `H200`."""
    word = instance_type.removeprefix("nvidia-")
    return None if instance_type == hardware.UNKNOWN_GPU_TYPE else word.upper()
