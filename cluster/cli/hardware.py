"""`moorage hardware`: the instance types of the cluster."""

from __future__ import annotations

from typing import Any

import typer

from cluster.cli import client, output
from cluster.cli.endpoints import Namespace

app = typer.Typer(add_completion=False)
COLUMNS = {
    "instanceType": "type",
    "instanceSize": "size",
    "numAccelerators": "accelerators",
    "numCpus": "cpus",
    "memoryGb": "memory GB",
    "gpuMemoryGb": "GPU memory GB",
    "pricePerHour": "price per hour",
    "total": "total",
    "free": "free",
    "freeOnBestNode": "free on best node",
    "status": "status",
}


@app.command()
def hardware(ctx: typer.Context, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show the instance types of the cluster, and what is free."""
    with client.connect(ctx.obj, namespace) as api:
        found = computes(api)
    if as_json:
        output.show_json(found)
    else:
        output.show_table(tuple(COLUMNS.values()), [[row.get(name) for name in COLUMNS] for row in found])


def computes(api: client.Client) -> list[dict[str, Any]]:
    """Every row of hardware, of all vendors and regions."""
    vendors = api.call("GET", f"/manage/v2/provider/{api.namespace}")["vendors"]
    return [compute for vendor in vendors for region in vendor["regions"] for compute in region["computes"]]
