"""The metrics of endpoints for Prometheus: names, help and labels of each, and the text of an export.

What is counted is `cluster.service_metrics`'s. Every series has the label `endpoint`, so that one dashboard serves all of them;
the dashboard in `cluster/data/grafana` asks for these names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from cluster import replica_timeline, service_metrics
from cluster.histograms import Histogram

Row = tuple[tuple[str, ...], float]
"""Values of the labels, and of the metric."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One endpoint at this moment."""

    path: str
    state: str
    """Hugging Face's word."""
    maximum: int
    """Replicas that it may have."""
    totals: service_metrics.Totals
    replicas: replica_timeline.Replicas


@dataclasses.dataclass(frozen=True)
class Family:
    """A counter or gauge: its labels beside `endpoint`, and its rows of one endpoint."""

    name: str
    help: str
    labels: tuple[str, ...]
    rows: Callable[[Reading], Iterable[Row]]
    counter: bool = False


def render(readings: Sequence[Reading], accept: str = "") -> tuple[bytes, str]:
    """The export and its content type: OpenMetrics, unless the Accept header wants only Prometheus' older text."""
    collector = _Export(readings)
    words = [word.partition(";")[0].strip() for word in accept.split(",")]
    if "text/plain" in words and "application/openmetrics-text" not in words:
        return exposition.generate_latest(collector), exposition.CONTENT_TYPE_PLAIN_0_0_4
    return openmetrics.generate_latest(collector), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]


class _Export(Collector):
    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """Every family, also those that have no rows: a dashboard's query for one is no mistake."""
        for family in FAMILIES:
            kind = CounterMetricFamily if family.counter else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=("endpoint", *family.labels))
            for reading in self._readings:
                for labels, value in family.rows(reading):
                    metric.add_metric((reading.path, *labels), value)
            yield metric
        for name, text, of in HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=("endpoint",))
            for reading in self._readings:
                counted = of(reading.totals.all)
                rows = [("+Inf" if math.isinf(bound) else f"{bound:.3g}", float(count)) for bound, count in counted.exported()]
                histogram.add_metric((reading.path,), buckets=rows, sum_value=counted.total)
            yield histogram


def _requests(reading: Reading) -> Iterator[Row]:
    for replica, statuses in reading.totals.replicas.items():
        for status, count in sorted(statuses.items()):
            yield (replica, str(status)), count


def _tokens(reading: Reading) -> Iterator[Row]:
    for kind in ("prompt", "completion", "cached"):
        yield (kind,), reading.totals.all.tokens[kind]


def _replicas(reading: Reading) -> Iterator[Row]:
    for state, count in reading.replicas.counts.items():
        yield (state,), count


def _since(reading: Reading) -> Iterator[Row]:
    for replica in reading.replicas.now:
        for state, at in replica.since.items():
            yield (replica.id, state), at


def _one(of: Callable[[Reading], float]) -> Callable[[Reading], Iterable[Row]]:
    return lambda reading: [((), of(reading))]


def _used(field: str) -> Callable[[Reading], Iterable[Row]]:
    """A field of what replicas use, where it is known."""

    def rows(reading: Reading) -> Iterator[Row]:
        for replica, used in reading.totals.hardware.items():
            if (value := getattr(used, field)) is not None:
                yield (replica,), value

    return rows


def _gpu(field: str) -> Callable[[Reading], Iterable[Row]]:
    """A field of replicas' GPUs, where the driver tells it."""

    def rows(reading: Reading) -> Iterator[Row]:
        for replica, used in reading.totals.hardware.items():
            for gpu in used.gpus:
                if (value := getattr(gpu, field)) is not None:
                    yield (replica, gpu.index), value

    return rows


REPLICA, GPU = ("replica_id",), ("replica_id", "gpu")
FAMILIES = (
    Family("http_requests", "Requests answered; replica_id '' = by the edge itself.", (*REPLICA, "status_code"), _requests, counter=True),
    Family("moorage_tokens", "Tokens of prompts, of completions, and of prompts that the cache had.", ("kind",), _tokens, counter=True),
    Family("moorage_images", "Images made.", (), _one(lambda reading: reading.totals.all.tokens["images"]), counter=True),
    Family("moorage_requests_running", "Requests that replicas work on now.", (), _one(lambda reading: reading.totals.running)),
    Family("moorage_requests_pending", "Requests that wait at the edge now.", (), _one(lambda reading: reading.totals.pending)),
    Family(
        "moorage_replica_requests_running",
        "Requests that a replica works on now.",
        REPLICA,
        lambda reading: [((replica,), count) for replica, count in reading.totals.at_replica.items()],
    ),
    Family("moorage_endpoint_state", "1 for the state that the endpoint is in.", ("state",), lambda reading: [((reading.state,), 1)]),
    Family("moorage_replicas", "Replicas by state: pending, starting, running, stopping.", ("state",), _replicas),
    Family("moorage_replicas_target", "Replicas that are wanted now.", (), _one(lambda reading: reading.replicas.target)),
    Family("moorage_replicas_max", "Replicas that the endpoint may have.", (), _one(lambda reading: reading.maximum)),
    Family("moorage_replica_state_timestamp_seconds", "When a replica came to a state.", (*REPLICA, "state"), _since),
    Family("moorage_replica_cpu_cores", "CPUs that a replica's processes keep busy.", REPLICA, _used("cpu_cores")),
    Family("moorage_replica_cpus_claimed", "CPUs that were promised to a replica.", REPLICA, _used("cpus_claimed")),
    Family("moorage_replica_memory_rss_bytes", "Resident memory of a replica's processes.", REPLICA, _used("memory_rss")),
    Family("moorage_replica_memory_pss_bytes", "The same, with shared memory divided among those who share.", REPLICA, _used("memory_pss")),
    Family("moorage_gpu_utilization_ratio", "Share of the time in which a GPU computed.", GPU, _gpu("utilization")),
    Family("moorage_gpu_memory_used_bytes", "Memory of a GPU in use.", GPU, _gpu("memory_used")),
    Family("moorage_gpu_memory_bytes", "Memory of a GPU.", GPU, _gpu("memory_total")),
    Family("moorage_gpu_temperature_celsius", "Temperature of a GPU.", GPU, _gpu("temperature")),
    Family("moorage_gpu_power_watts", "Power that a GPU draws.", GPU, _gpu("power")),
)
HISTOGRAMS: tuple[tuple[str, str, Callable[[service_metrics.Minute], Histogram]], ...] = (
    ("latency_distribution", "Seconds of requests that replicas answered, as clients saw them.", lambda counted: counted.latency),
    ("moorage_engine_seconds", "Seconds that requests were at the engine.", lambda counted: counted.engine),
    ("moorage_first_token_seconds", "Seconds at the engine until the first token.", lambda counted: counted.first_token),
)
