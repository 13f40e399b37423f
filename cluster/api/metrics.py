"""Routes of metrics: an endpoint's for people, and the exports that Prometheus scrapes."""

import time
from collections import Counter
from typing import Annotated, Any

from fastapi import Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import control, messages, metrics_view, open_metrics, replica_timeline, service_metrics
from cluster.actor import Actor
from cluster.api import metrics_schemas, moments, wire
from cluster.api.routes import Routes
from cluster.histograms import Histogram

USUAL_WINDOW_S = 300.0
KINDS = ("application/openmetrics-text", "text/plain")
EXPORT: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {"schema": {"type": "string"}} for kind in KINDS}}}


def router(commands: control.Control, view: metrics_view.MetricsView, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("observing")

    @api.get(
        "/v2/endpoint/{namespace}/{name}/metrics",
        summary="What it has to do now, and how its requests went",
        response_model=metrics_schemas.Metrics,
    )
    def metrics(namespace: str, name: str, actor: Annotated[Actor, who], since: moments.Since = None) -> Response:
        row = commands.get(actor, namespace, name)
        begin = time.time() - USUAL_WINDOW_S if since is None else moments.since(since)
        counted, first = view.counted.window(row.path, begin)
        status, reading = commands.status(row), view.reading(row)
        now = {"running": sum(commands.loads(row)), "ready": status.ready, "target": status.target}
        return JSONResponse({**now, **_now(reading), "since": wire.time(first), **_counted(counted)})

    @api.get(
        "/v2/endpoint/{namespace}/{name}/open-metrics",
        summary="Its metrics for Prometheus",
        response_class=Response,
        responses=EXPORT,
    )
    def export(request: Request, namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        row = commands.get(actor, namespace, name)
        return _export(request, [view.reading(row)])

    @api.get(
        "/v2/open-metrics",
        summary="Metrics of every endpoint that this key may see, for Prometheus",
        response_class=Response,
        responses=EXPORT,
    )
    def export_all(request: Request, actor: Annotated[Actor, who]) -> Response:
        return _export(request, view.all(actor))

    return api


def _export(request: Request, readings: list[open_metrics.Reading]) -> Response:
    text, kind = open_metrics.render(readings, request.headers.get("accept", ""))
    return Response(text, headers={"content-type": kind})


def _now(reading: open_metrics.Reading) -> dict[str, Any]:
    points = [{"at": wire.time(point.at), **point.counts, "target": point.target} for point in reading.replicas.points]
    return {
        "pending": reading.totals.pending,
        "max": reading.maximum,
        "replicas": [_replica(replica, reading.totals) for replica in reading.replicas.now],
        "timeline": points,
    }


def _replica(replica: replica_timeline.Replica, totals: service_metrics.Totals) -> dict[str, Any]:
    used = totals.hardware.get(replica.id)
    return {
        "id": replica.id,
        "state": replica.state,
        "member": replica.member or None,
        "running": totals.at_replica.get(replica.id, 0),
        "since": {state: wire.time(at) for state, at in replica.since.items()},
        "requests": _by_status(totals.replicas.get(replica.id, Counter())),
        "hardware": _hardware(used) if used is not None else None,
    }


def _hardware(used: messages.HardwareUse) -> dict[str, Any]:
    known = used.cpu_cores is not None and used.cpus_claimed
    return {
        "cpuCores": used.cpu_cores,
        "cpusClaimed": used.cpus_claimed,
        "cpuUtilization": round(used.cpu_cores / used.cpus_claimed, 4) if known and used.cpu_cores is not None else None,
        "memoryRss": used.memory_rss,
        "memoryPss": used.memory_pss,
        "gpus": [_gpu(gpu) for gpu in used.gpus],
    }


def _gpu(gpu: messages.Gpu) -> dict[str, Any]:
    share = round(gpu.memory_used / gpu.memory_total, 4) if gpu.memory_used is not None and gpu.memory_total else None
    return {
        "index": gpu.index,
        "name": gpu.name,
        "utilization": gpu.utilization,
        "memoryUsed": gpu.memory_used,
        "memoryTotal": gpu.memory_total,
        "memoryUtilization": share,
        "temperature": gpu.temperature,
        "power": gpu.power,
    }


def _counted(counted: service_metrics.Minute) -> dict[str, Any]:
    classes: Counter[str] = Counter()
    for status, count in counted.statuses.items():
        classes[f"{status // 100}xx" if status else "none"] += count
    return {
        "requests": {"total": counted.statuses.total(), "byStatus": _by_status(counted.statuses), "byClass": dict(sorted(classes.items()))},
        "latency": {
            "total": _percentiles(counted.latency),
            "engine": _percentiles(counted.engine),
            "firstToken": _percentiles(counted.first_token),
        },
        "tokens": {kind: counted.tokens[kind] for kind in ("prompt", "completion", "cached", "images")},
    }


def _by_status(statuses: Counter[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(statuses.items())}


def _percentiles(histogram: Histogram) -> dict[str, Any]:
    count = histogram.count
    found = {f"p{percent}": histogram.percentile(percent) for percent in (50, 90, 95, 99)}
    rounded = {name: None if value is None else round(value, 4) for name, value in found.items()}
    return {"count": count, "mean": round(histogram.total / count, 4) if count else None, **rounded}
