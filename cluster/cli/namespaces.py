"""`moorage namespaces ...`: the projects of a tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli import client, output
from cluster.cli.tenants import Description

app = typer.Typer(no_args_is_help=True, help="The namespaces (projects) that you may use. Admins create and delete them.")

Name = Annotated[str, typer.Argument(metavar="NAMESPACE", help="Its name.", show_default=False)]
ROUTE = "/manage/v2/namespaces"


@app.command("ls")
def list_(ctx: typer.Context, as_json: output.Json = False) -> None:
    """List the namespaces that you may use."""
    with client.connect(ctx.obj) as api:
        found = api.items(ROUTE)
    columns = ("name", "tenant", "description", "age")
    output.show_items(found, as_json, columns, lambda row: (row["name"], row["tenant"], row["description"], output.age(row["createdAt"])))


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    tenant: Annotated[str | None, typer.Option(help="Whose it is. (default: your tenant)", show_default=False)] = None,
    description: Description = "",
    as_json: output.Json = False,
) -> None:
    """Create a namespace."""
    body = {"name": name, "description": description} | ({"tenant": tenant} if tenant else {})
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("POST", ROUTE, body), as_json)


@app.command()
def describe(ctx: typer.Context, name: Name, as_json: output.Json = False) -> None:
    """Show one namespace."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("GET", f"{ROUTE}/{name}"), as_json)


@app.command()
def update(ctx: typer.Context, name: Name, description: Description, as_json: output.Json = False) -> None:
    """Describe a namespace anew."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("PATCH", f"{ROUTE}/{name}", {"description": description}), as_json)


@app.command()
def delete(ctx: typer.Context, name: Name, yes: output.Yes = False, as_json: output.Json = False) -> None:
    """Delete a namespace in which nothing lies any more."""
    output.confirm(f"Delete the namespace {name}?", yes)
    with client.connect(ctx.obj) as api:
        api.call("DELETE", f"{ROUTE}/{name}")
    output.show_done({"deleted": name}, f"The namespace {name} is deleted.", as_json)
