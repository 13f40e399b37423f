"""The hardware that endpoints may ask for: instance types and sizes, worked out from the nodes that Ray lists.

An instance is what one replica gets. `local-cpu` xN is N CPUs of one node; `nvidia-<type>` xN is N GPUs, of one node
where one has as many, else of several. What a request for an instance becomes on Ray is `cluster.admission`'s.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cluster import observation

CPU_TYPE = "local-cpu"
UNKNOWN_GPU_TYPE = "nvidia-gpu"
VENDOR = REGION = "local"
GIB = 1024**3


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

    @property
    def size(self) -> str:
        """`x1`, `x2`, ..."""
        return f"x{self.count}"

    @property
    def gpu(self) -> bool:
        """Whether it is counted in GPUs."""
        return self.type != CPU_TYPE

    @property
    def status(self) -> str:
        """Hugging Face's word: room for several, for one more, for none right now."""
        return ("not_available", "low_availability")[self.fitting] if self.fitting < 2 else "available"


def instances(cluster: observation.Cluster) -> tuple[Instance, ...]:
    """Every type with sizes doubling from x1 up to what the cluster has: CPUs first, then GPU types by name."""
    kinds: dict[str, list[observation.Node]] = {}
    for node in cluster.nodes:
        if node.gpus:
            kinds.setdefault(gpu_type(node.accelerator), []).append(node)
    rows = list(_cpu_rows(cluster.nodes))
    for kind in sorted(kinds):
        rows += _gpu_rows(kind, kinds[kind])
    return tuple(rows)


def gpu_type(accelerator: str) -> str:
    """The instance type of Ray's accelerator type: `H200` -> `nvidia-h200`."""
    word = re.sub(r"[^a-z0-9]+", "-", accelerator.lower()).strip("-")
    return f"nvidia-{word}" if word else UNKNOWN_GPU_TYPE


def of_type(rows: Iterable[Instance], instance_type: str) -> Instance | None:
    """The smallest instance of that type, which tells what the whole type has; None when there is no such hardware."""
    return next((row for row in rows if row.type == instance_type), None)


def wire(rows: Sequence[Instance]) -> dict[str, Any]:
    """The answer of `GET /provider/{namespace}`: Hugging Face's shape, one vendor with one region."""
    region = {"name": REGION, "label": "This cluster", "status": "available", "computes": [_compute(row) for row in rows]}
    return {"vendors": [{"name": VENDOR, "status": "available", "regions": [region]}]}


def _cpu_rows(nodes: Sequence[observation.Node]) -> Iterator[Instance]:
    best = max((node.cpus for node in nodes), default=0)
    for count in _doublings(int(best)):
        holders = [node for node in nodes if node.cpus >= count]
        yield Instance(
            type=CPU_TYPE,
            count=count,
            total=int(sum(node.cpus for node in nodes)),
            free=sum(node.cpus_free for node in nodes),
            best_node=int(best),
            free_best_node=max(node.cpus_free for node in nodes),
            fitting=sum(int(node.cpus_free // count) for node in nodes),
            cpus=count,
            memory_bytes=max(int(node.memory_bytes * count / node.cpus) for node in holders),
        )


def _gpu_rows(kind: str, nodes: Sequence[observation.Node]) -> Iterator[Instance]:
    total, best = sum(node.gpus for node in nodes), max(node.gpus for node in nodes)
    free = sum(node.gpus_free for node in nodes)
    for count in _doublings(total):
        on_one_node = count <= best
        yield Instance(
            type=kind,
            count=count,
            total=total,
            free=free,
            best_node=best,
            free_best_node=max(node.gpus_free for node in nodes),
            fitting=sum(int(node.gpus_free // count) for node in nodes) if on_one_node else int(free // count),
            accelerator_type=nodes[0].accelerator or None,
            cpus=min(node.cpus / node.gpus for node in nodes) * count,
            memory_bytes=min(node.memory_bytes // node.gpus for node in nodes) * count,
            gpu_memory_bytes=min(node.gpu_memory_bytes // node.gpus for node in nodes) * count,
        )


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
        "pricePerHour": 0.0,
        "status": row.status,
        "quota": {"maxAccelerators": row.total, "usedAccelerators": round(row.total - row.free)},
        "total": row.total,
        "free": row.free,
        "freeOnBestNode": row.free_best_node,
    }
