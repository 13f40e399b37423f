"""`moorage plan MODEL`: what a model needs, where it fits and what that costs, before anything is created."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli import client, fields, fits, output
from cluster.cli.endpoints import Namespace, to_body

app = typer.Typer(add_completion=False)


@app.command()
@fields.taking_fields
def plan(
    ctx: typer.Context,
    repository: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, s3://bucket/prefix, model://name or a path.")],
    fields: fields.Fields = fields.Fields(),
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show what a model needs and which instance types it fits, by cost and by speed. Nothing is downloaded or created."""
    body = to_body(fields)
    body["model"] = {**body.get("model", {}), "repository": repository}
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("POST", api.path(), body, {"dryRun": "true"})
    if as_json:
        output.show_json(found)
        return
    fits.show(found, only=fields.instance_type)
    for warning in found["warnings"]:
        output.say(f"Warning: {warning}")
