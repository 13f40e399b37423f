"""From an instance type and size to what a replica claims from Ray, and how an LLM engine divides itself over it.

Never refuses: what may be asked for is `cluster.admission`'s to say, before a revision is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cluster import hardware
from cluster import spec as specs

USUAL_NODE = 8
"""GPUs that one node commonly has: what no present node can hold is awaited on one node up to this, on several beyond."""
PARALLEL_FLAGS: Mapping[str, tuple[str, ...]] = {
    "tensorParallelSize": ("--tensor-parallel-size", "-tp"),
    "pipelineParallelSize": ("--pipeline-parallel-size", "-pp"),
    "dataParallelSize": ("--data-parallel-size", "-dp"),
}


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


def parallel(model: Mapping[str, Any]) -> dict[str, int]:
    """The parallel sizes that a model's wire form names, in its image or as engine flags. Flags that are no numbers are left out."""
    variant: Mapping[str, Any] = next(iter(model.get("image", {}).values()), {})
    found = {name: variant[name] for name in PARALLEL_FLAGS if isinstance(variant.get(name), int)}
    words = [str(word) for word in model.get("args", ())]
    for name, flags in PARALLEL_FLAGS.items():
        for position, word in enumerate(words):
            flag, has_value, value = word.partition("=")
            value = value if has_value else next(iter(words[position + 1 :]), "")
            if flag in flags and re.fullmatch(r"[0-9]{1,6}", value):
                found[name] = int(value)
    return found


def with_parallel_sizes(model: Mapping[str, Any], placement: specs.Placement) -> dict[str, Any]:
    """The model's wire form for vLLM, with a tensor parallel size that uses the whole instance where none is named."""
    named = parallel(model)
    image = {name: value for name, value in next(iter(model["image"].values())).items() if name in _VLLM_FIELDS}
    if placement.gpus > 1 and "tensorParallelSize" not in named:
        rest = named.get("pipelineParallelSize", 1) * named.get("dataParallelSize", 1)
        image["tensorParallelSize"] = max(1, placement.gpus // rest)
    return {**model, "image": {"vLLM": image}}


_VLLM_FIELDS = frozenset(field.alias for field in specs.VllmImage.model_fields.values())


def _on_one_node(count: int, known: hardware.Instance | None) -> bool:
    if known is not None and count <= known.best_node:
        return True
    return count <= USUAL_NODE and (known is None or count > known.total)


def _ray_type(instance_type: str) -> str | None:
    """Ray's name of a GPU that no present node has: `nvidia-h200` -> `H200`."""
    word = instance_type.removeprefix("nvidia-")
    return None if instance_type == hardware.UNKNOWN_GPU_TYPE else word.upper()
