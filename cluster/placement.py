"""From an instance type and size to what a replica claims from Ray.

Never refuses: what may be asked for is `cluster.admission`'s to say, before a revision is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster import hardware
from cluster import spec as specs

USUAL_NODE = 8
"""GPUs that one node commonly has: what no present node can hold is awaited on one node up to this, on several beyond."""


def of(compute: specs.Compute, rows: Iterable[hardware.Instance]) -> specs.Placement:
    """The claim of one replica: one bundle where a node has as many GPUs, else one GPU per bundle, spread over few nodes."""
    count = count_of(compute)
    known = hardware.of_type(rows, compute.instance_type)
    if not known and compute.instance_type == hardware.CPU_TYPE:
        return _cpus(count)
    if known and not known.gpu:
        return _cpus((known.claims_cpus or known.count) / known.count * count)
    each = known.claims_cpus / known.count if known and known.claims_cpus else None
    accelerator = known.accelerator_type if known else hardware.ray_type(compute.instance_type)
    common: dict[str, Any] = {"gpus": count, "accelerator_type": accelerator or None}
    if _on_one_node(count, known):
        cpus = each * count if each else 1.0
        return specs.Placement(**common, cpus=cpus, bundles=({"CPU": cpus, "GPU": float(count)},))
    rest = {"GPU": 1.0, **({"CPU": each} if each else {})}
    bundles = ({"CPU": each or 1.0, "GPU": 1.0}, *(dict(rest) for _ in range(count - 1)))
    return specs.Placement(**common, cpus=each or 1.0, bundles=bundles, strategy="PACK")


def _cpus(count: float) -> specs.Placement:
    return specs.Placement(cpus=count, bundles=({"CPU": float(count)},))


def count_of(compute: specs.Compute) -> int:
    """`x4` -> 4."""
    return int(compute.instance_size.removeprefix("x"))


def _on_one_node(count: int, known: hardware.Instance | None) -> bool:
    if known is not None and count <= known.best_node:
        return True
    return count <= USUAL_NODE and (known is None or count > known.total)
