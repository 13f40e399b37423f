"""The shapes of what an endpoint's metrics are answered as."""

from __future__ import annotations

from typing import Literal

from cluster.api.schemas import Answer


class Gpu(Answer):
    """A GPU of a replica. Null = its driver does not say. `utilization` is 0 to 1, memory in bytes, power in watts."""

    index: str
    name: str
    utilization: float | None
    memory_used: int | None
    memory_total: int | None
    memory_utilization: float | None
    temperature: float | None
    power: float | None


class HardwareUse(Answer):
    """What a replica's processes use of their node. `cpuUtilization` is `cpuCores` / `cpusClaimed`, and above 1 where nothing
    holds a replica to its claim; `memoryRss` counts shared memory for each process, `memoryPss` once."""

    cpu_cores: float | None
    cpus_claimed: float
    cpu_utilization: float | None
    memory_rss: int
    memory_pss: int | None
    gpus: list[Gpu]


class ReplicaMetrics(Answer):
    """One replica. `running`: requests that it works on, as the edge sees it. `since`: when it came to each of its states."""

    id: str
    state: Literal["pending", "starting", "running", "stopping"]
    member: str | None
    running: float
    since: dict[str, str]
    requests: dict[str, int]
    hardware: HardwareUse | None


class Percentiles(Answer):
    """Seconds, right within 6 %; null where nothing was counted."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class Requests(Answer):
    """What requests were answered with. `byStatus` has `0` for those whose client left before there was an answer."""

    total: int
    by_status: dict[str, int]
    by_class: dict[str, int]


class Latency(Answer):
    """`total`: from a request's first byte at the edge to its answer's last, waiting included; the others at the engine."""

    total: Percentiles
    engine: Percentiles
    first_token: Percentiles


class Tokens(Answer):
    """Of requests that ended. `cached` are those of `prompt` that the prefix cache had."""

    prompt: int
    completion: int
    cached: int
    images: int


class ReplicaCounts(Answer):
    """Replicas from `at` on."""

    at: str
    pending: int
    starting: int
    running: int
    stopping: int
    target: int


class Metrics(Answer):
    """What an endpoint has to do now, and what came to an end since `since`: at most an hour back, in whole minutes.

    `running` is the engines' own count; `pending` waits at the edge for a place on a replica, or for a replica.
    """

    running: float
    pending: int
    ready: int
    target: int
    max: int
    replicas: list[ReplicaMetrics]
    since: str
    requests: Requests
    latency: Latency
    tokens: Tokens
    timeline: list[ReplicaCounts]
