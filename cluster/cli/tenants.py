"""`moorage tenants ...`: the organisations that share the platform."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli import client, output

app = typer.Typer(no_args_is_help=True, help="The tenants of the platform. Operators create and delete them.")

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="Its name.", show_default=False)]
Description = Annotated[str, typer.Option("--description", "-d", help="For people.")]
ROUTE = "/manage/v2/tenants"


@app.command("ls")
def list_(ctx: typer.Context, as_json: output.Json = False) -> None:
    """List the tenants: all for an operator, else your own."""
    with client.connect(ctx.obj) as api:
        found = api.items(ROUTE)
    columns = ("name", "description", "age")
    output.show_items(found, as_json, columns, lambda row: (row["name"], row["description"], output.age(row["createdAt"])))


@app.command()
def create(ctx: typer.Context, name: Tenant, description: Description = "", as_json: output.Json = False) -> None:
    """Create a tenant. It has no namespaces and users yet: `moorage namespaces create`, `moorage users create`."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("POST", ROUTE, {"name": name, "description": description}), as_json)


@app.command()
def describe(ctx: typer.Context, name: Tenant, as_json: output.Json = False) -> None:
    """Show one tenant."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("GET", f"{ROUTE}/{name}"), as_json)


@app.command()
def update(ctx: typer.Context, name: Tenant, description: Description, as_json: output.Json = False) -> None:
    """Describe a tenant anew."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("PATCH", f"{ROUTE}/{name}", {"description": description}), as_json)


@app.command()
def delete(ctx: typer.Context, name: Tenant, yes: output.Yes = False, as_json: output.Json = False) -> None:
    """Delete a tenant that has no namespaces and users any more. Nothing is shared with it afterwards."""
    output.confirm(f"Delete the tenant {name}?", yes)
    with client.connect(ctx.obj) as api:
        api.call("DELETE", f"{ROUTE}/{name}")
    output.show_done({"deleted": name}, f"The tenant {name} is deleted.", as_json)
