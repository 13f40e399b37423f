"""The hardware that endpoints may ask for: instance types and sizes, worked out from the nodes that Ray lists.

An instance is what one replica gets. `local-cpu` xN is N CPUs of one node; `nvidia-<type>` xN is N GPUs, of one node
where one has as many, else of several. The operator's own types (`cluster.instance_types`) come on top. What a request for
an instance becomes on Ray is `cluster.placement`'s.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cluster import instance_types, observation

CPU_TYPE = "local-cpu"
UNKNOWN_GPU_TYPE = "nvidia-gpu"
VENDOR = REGION = "local"
GIB = 1024**3
GPU_MEMORY_GIB: Mapping[str, float] = {
    **{"B300": 268, "B200": 179, "GB200": 185, "H200": 140.4, "H100": 79.6, "H20": 95.6, "GH200": 94.5},
    **{"A100": 40, "A100-40G": 40, "A100-80G": 80, "L40S": 45, "L4": 22.5, "A10G": 22.5, "A10": 22.5, "A40": 45, "A30": 24},
    **{"T4": 15, "V100": 16, "P100": 16, "RTX-PRO-6000": 95.6},
}
"""Memory of one GPU by Ray's accelerator type, as its driver reports it; an A100 counts as the smaller one. Ray does not tell."""
GPU_BANDWIDTH_TB_S: Mapping[str, float] = {
    **{"B300": 8.0, "B200": 8.0, "GB200": 8.0, "H200": 4.8, "H100": 3.35, "GH200": 4.0, "H20": 4.0},
    **{"A100": 1.55, "A100-40G": 1.55, "A100-80G": 2.0, "L40S": 0.86, "L4": 0.3, "A10G": 0.6, "A10": 0.6, "A40": 0.7, "A30": 0.93},
    **{"T4": 0.32, "V100": 0.9, "P100": 0.73, "RTX-PRO-6000": 1.8},
}
"""Memory bandwidth of one GPU by its maker's data sheet: what bounds the pace of one stream of tokens."""
USUAL_BANDWIDTH_TB_S, CPU_BANDWIDTH_TB_S = 1.0, 0.02
"""Of GPUs that are not in the table, and of one CPU."""


@dataclasses.dataclass(frozen=True)
class Instance:
    """One row of the hardware table. Counts are CPUs for `local-cpu` and GPUs for the others; memory is one instance's share."""

    type: str
    count: int
    total: int
    """On all nodes of this type."""
    free: float
    best_node: int
    """The most that one node has."""
    free_best_node: float
    fitting: int
    """Instances of this size that would find room now."""
    accelerator_type: str | None = None
    """Ray's name of the accelerator, None for CPUs and unknown GPUs."""
    cpus: float = 0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0
    price_per_hour: float = 0.0
    gpu: bool = False
    """Whether it is counted in GPUs."""
    claims_cpus: float | None = None
    """CPUs that a replica claims, where the operator said so; else one for each GPU type, all for the others."""
    said: instance_types.Status | None = None
    """The operator's own word on it."""
    fixed: bool = False
    """Whether the operator said which sizes there are."""

    @property
    def size(self) -> str:
        """`x1`, `x2`, ..."""
        return f"x{self.count}"

    @property
    def bandwidth(self) -> float:
        """Of its memory, all accelerators or CPUs together, in TB/s: a rough figure, for comparing."""
        if not self.gpu:
            return CPU_BANDWIDTH_TB_S * max(1.0, self.cpus)
        return GPU_BANDWIDTH_TB_S.get(_known_as(self.accelerator_type or ""), USUAL_BANDWIDTH_TB_S) * self.count

    @property
    def status(self) -> str:
        """Hugging Face's word: the operator's, else room for several, for one more, for none right now."""
        if self.said is not None and self.said != "available":
            return self.said
        return ("not_available", "low_availability")[self.fitting] if self.fitting < 2 else "available"


def instances(cluster: observation.Cluster, catalogue: instance_types.Catalogue = instance_types.NONE) -> tuple[Instance, ...]:
    """Every type with its sizes, doubling from x1 up to what the cluster has where nothing else is said: CPUs first, then GPU
    types by name, then those that the operator added."""
    named: dict[str, list[observation.Node]] = {}
    for node in cluster.nodes:
        if node.gpus:
            named.setdefault(gpu_type(node.accelerator), []).append(node)
    by_itself = [CPU_TYPE, *sorted(named)]
    offered = [name for name in by_itself if catalogue.defaults or name in catalogue.types]
    rows: list[Instance] = []
    for name in (*offered, *(name for name in catalogue.types if name not in by_itself)):
        said = catalogue.types.get(name) or instance_types.InstanceType.model_validate({"name": name})
        if not said.gpu:
            rows += _cpu_rows(cluster.nodes, said)
            continue
        nodes = named.get(gpu_type(said.accelerator or "")) if said.accelerator else named.get(name)
        rows += _gpu_rows(nodes or [], said)
    return tuple(rows)


def gpu_type(accelerator: str) -> str:
    """The instance type of Ray's accelerator type: `H200` -> `nvidia-h200`."""
    word = re.sub(r"[^a-z0-9]+", "-", accelerator.lower()).strip("-")
    return f"nvidia-{word}" if word else UNKNOWN_GPU_TYPE


def find(rows: Iterable[Instance], instance_type: str, size: str) -> Instance | None:
    """The row of that type and size, None when it is not listed."""
    return next((row for row in rows if (row.type, row.size) == (instance_type, size)), None)


def of_type(rows: Iterable[Instance], instance_type: str) -> Instance | None:
    """The smallest instance of that type, which tells what the whole type has; None when there is no such hardware."""
    return next((row for row in rows if row.type == instance_type), None)


def wire(rows: Sequence[Instance]) -> dict[str, Any]:
    """The answer of `GET /provider/{namespace}`: Hugging Face's shape, one vendor with one region."""
    region = {"name": REGION, "label": "This cluster", "status": "available", "computes": [_compute(row) for row in rows]}
    return {"vendors": [{"name": VENDOR, "status": "available", "regions": [region]}]}


def _cpu_rows(nodes: Sequence[observation.Node], said: instance_types.InstanceType) -> Iterator[Instance]:
    unit = said.cpus or 1
    best = max((node.cpus for node in nodes), default=0)
    for count in _counts(int(best // unit), said):
        cpus = count * unit
        holders = [node for node in nodes if node.cpus >= cpus]
        shares = [int(node.memory_bytes * cpus / node.cpus) for node in holders]
        yield Instance(
            type=said.name,
            count=count,
            total=int(sum(node.cpus for node in nodes)),
            free=sum(node.cpus_free for node in nodes),
            best_node=int(best),
            free_best_node=max((node.cpus_free for node in nodes), default=0),
            fitting=sum(int(node.cpus_free // cpus) for node in nodes),
            cpus=cpus,
            memory_bytes=int(said.memory_gb * GIB * count) if said.memory_gb else max(shares, default=0),
            price_per_hour=said.price(count),
            claims_cpus=cpus,
            said=said.status,
            fixed=bool(said.sizes),
        )


def _gpu_rows(nodes: Sequence[observation.Node], said: instance_types.InstanceType) -> Iterator[Instance]:
    total, best = sum(node.gpus for node in nodes), max((node.gpus for node in nodes), default=0)
    free = sum(node.gpus_free for node in nodes)
    accelerator = said.accelerator or (nodes[0].accelerator if nodes else ray_type(said.name))
    for count in _counts(total, said):
        on_one_node = count <= best
        share = min((node.cpus / node.gpus for node in nodes), default=0) * count
        yield Instance(
            type=said.name,
            count=count,
            total=total,
            free=free,
            best_node=best,
            free_best_node=max((node.gpus_free for node in nodes), default=0),
            fitting=sum(int(node.gpus_free // count) for node in nodes) if on_one_node else int(free // count),
            accelerator_type=accelerator or None,
            cpus=said.cpus * count if said.cpus else share,
            memory_bytes=_gib(said.memory_gb, count) or min((node.memory_bytes // node.gpus for node in nodes), default=0) * count,
            gpu_memory_bytes=_gib(said.gpu_memory_gb, count) or _gpu_memory(nodes, accelerator) * count,
            price_per_hour=said.price(count),
            gpu=True,
            claims_cpus=said.cpus * count if said.cpus else None,
            said=said.status,
            fixed=bool(said.sizes),
        )


def _gpu_memory(nodes: Sequence[observation.Node], accelerator: str) -> int:
    """Of one GPU in bytes; 0 = not known."""
    seen = min((node.gpu_memory_bytes // node.gpus for node in nodes), default=0)
    return seen or int(GPU_MEMORY_GIB.get(_known_as(accelerator), 0) * GIB)


def _known_as(accelerator: str) -> str:
    return accelerator.upper().replace(" ", "-")


def _gib(said: float | None, count: int) -> int:
    return int(said * GIB * count) if said else 0


def _counts(most: int, said: instance_types.InstanceType) -> Iterator[int]:
    """The sizes said, else doubling up to `most`; at least x1 of a type that the operator declared."""
    if said.sizes:
        yield from (int(size.removeprefix("x")) for size in said.sizes)
        return
    yield from _doublings(max(most, 1) if said.model_fields_set - {"name"} else most)


def ray_type(instance_type: str) -> str:
    """Ray's name of a GPU that no present node has: `nvidia-h200` -> `H200`."""
    return "" if instance_type == UNKNOWN_GPU_TYPE else instance_type.removeprefix(instance_types.OWN_GPU).upper()


def _doublings(most: int) -> Iterator[int]:
    count = 1
    while count <= most:
        yield count
        count *= 2


def _compute(row: Instance) -> dict[str, Any]:
    return {
        "id": f"{row.type}-{row.size}",
        "accelerator": "gpu" if row.gpu else "cpu",
        "instanceType": row.type,
        "instanceSize": row.size,
        "architecture": (row.accelerator_type or "GPU") if row.gpu else "CPU",
        "numAccelerators": row.count,
        "numCpus": int(row.cpus),
        "memoryGb": round(row.memory_bytes / GIB),
        "gpuMemoryGb": round(row.gpu_memory_bytes / GIB) if row.gpu_memory_bytes else None,
        "pricePerHour": round(row.price_per_hour, 6),
        "status": row.status,
        "quota": {"maxAccelerators": row.total, "usedAccelerators": round(row.total - row.free)},
        "total": row.total,
        "free": row.free,
        "freeOnBestNode": row.free_best_node,
    }
