"""`moorage endpoints metrics`: how an endpoint's requests go, and what its replicas use."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.cli import client, output

MEMORY_UNIT = 2**30
WATCH_S = 2.0

Name = Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.", show_default=False)]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="(default: that of your key)", show_default=False)]


def metrics(
    ctx: typer.Context,
    name: Name,
    minutes: Annotated[int, typer.Option(help="How far back requests count.", min=1, max=60)] = 5,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every two seconds, until interrupted.")] = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show how an endpoint's requests go, and what its replicas use."""
    with client.connect(ctx.obj, namespace) as api:
        while True:
            found = api.call("GET", api.path(name, "/metrics"), params={"since": f"{time.time() - 60 * minutes:.0f}"})
            if as_json and watch:
                output.show_json_line(found)
            elif as_json:
                output.show_json(found)
            else:
                if watch and sys.stdout.isatty():
                    Console().clear()
                show(found)
            if not watch:
                return
            time.sleep(WATCH_S)


def show(found: dict[str, Any]) -> None:
    """Everything, for a person."""
    requests, tokens = found["requests"], found["tokens"]
    output.show_fields(
        {
            "since": found["since"],
            "running": f"{found['running']:g}",
            "pending": str(found["pending"]),
            "replicas": f"{found['ready']} of {found['target']}, at most {found['max']}",
            "requests": str(requests["total"]),
            "by status": ", ".join(f"{status}: {count}" for status, count in requests["byStatus"].items()),
            "tokens": f"prompt {tokens['prompt']} (cached {tokens['cached']}), completion {tokens['completion']}",
            "images": tokens["images"] or None,
        }
    )
    rows = [(title, *_percentiles(found["latency"][name])) for name, title in LATENCIES.items() if found["latency"][name]["count"]]
    if rows:
        output.show_table(("seconds", "requests", "mean", "p50", "p90", "p95", "p99"), rows)
    show_replicas(found)


def show_replicas(found: dict[str, Any]) -> None:
    """A row for each replica, and one for each GPU."""
    rows = [
        (one["id"], one["member"], one["state"], _for(one), f"{one['running']:g}", *_hardware(one["hardware"])) for one in found["replicas"]
    ]
    if rows:
        output.show_table(("replica", "member", "state", "for", "running", "cpus", "memory GiB"), rows)
    show_gpus(found)


def show_hardware(found: dict[str, Any]) -> None:
    """What replicas use, where they have told it."""
    if any(one["hardware"] for one in found["replicas"]):
        show_replicas(found)


def show_gpus(found: dict[str, Any]) -> None:
    """A row for each GPU of each replica."""
    rows = [(one["id"], *_gpu(gpu)) for one in found["replicas"] for gpu in (one["hardware"] or {}).get("gpus", ())]
    if rows:
        output.show_table(("replica", "gpu", "name", "busy", "memory GiB", "of GiB", "°C", "W"), rows)


LATENCIES = {"total": "in all", "engine": "at the engine", "firstToken": "first token"}


def _for(replica: dict[str, Any]) -> str:
    return output.age(replica["since"].get(replica["state"]))


def _percentiles(found: dict[str, Any]) -> list[object]:
    return [found["count"], *(_number(found[name], 3) for name in ("mean", "p50", "p90", "p95", "p99"))]


def _hardware(used: dict[str, Any] | None) -> tuple[str, str]:
    if used is None:
        return "", ""
    memory = used["memoryRss"] if used["memoryPss"] is None else used["memoryPss"]
    return f"{_number(used['cpuCores'], 2) or '?'} of {used['cpusClaimed']:g}", _number(memory / MEMORY_UNIT, 2)


def _gpu(gpu: dict[str, Any]) -> tuple[str, ...]:
    busy = "" if gpu["utilization"] is None else f"{gpu['utilization']:.0%}"
    memory = ["" if gpu[name] is None else _number(gpu[name] / MEMORY_UNIT, 1) for name in ("memoryUsed", "memoryTotal")]
    return (gpu["index"], gpu["name"], busy, *memory, _number(gpu["temperature"], 0), _number(gpu["power"], 0))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
