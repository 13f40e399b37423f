"""`moorage users ...`: the people and service accounts of a tenant; `moorage whoami`: which of them one is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster import errors
from cluster.cli import client, output
from cluster.cli.tenants import Description

app = typer.Typer(no_args_is_help=True, help="The people and service accounts of your tenant; of all tenants for an operator.")
me = typer.Typer()

User = Annotated[str, typer.Argument(metavar="USER", help="Its name.", show_default=False)]
Role = Annotated[str | None, typer.Option(help="viewer, member, admin or operator.", show_default=False)]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="May act in this one beside its home; repeatable, '' = all of its tenant.", show_default=False),
]
ROUTE = "/manage/v2/users"


@app.command("ls")
def list_(ctx: typer.Context, as_json: output.Json = False) -> None:
    """List the users."""
    with client.connect(ctx.obj) as api:
        found = api.items(ROUTE)
    output.show_items(found, as_json, ("name", "kind", "role", "tenant", "namespaces", "state"), _cells)


@app.command()
def create(
    ctx: typer.Context,
    name: User,
    role: Role = None,
    service: Annotated[bool, typer.Option("--service", help="It is a service account, not a person.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Whose it is. (default: your tenant)", show_default=False)] = None,
    home: Annotated[str | None, typer.Option(help="The namespace it is at home in. (default: found where there is one)")] = None,
    namespace: Namespaces = None,
    description: Description = "",
    as_json: output.Json = False,
) -> None:
    """Create a user, a member unless --role says otherwise. It acts by keys: `moorage platform-keys create --user`."""
    given = {"role": role, "tenant": tenant, "namespace": home, "kind": "service" if service else "person"}
    body = {"name": name, "description": description, "namespaces": _some(namespace), **given}
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("POST", ROUTE, {key: value for key, value in body.items() if value is not None}), as_json)


@app.command()
def describe(ctx: typer.Context, name: User, as_json: output.Json = False) -> None:
    """Show one user."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("GET", f"{ROUTE}/{name}"), as_json)


@app.command()
def update(
    ctx: typer.Context,
    name: User,
    role: Role = None,
    namespace: Namespaces = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether its keys are accepted.", show_default=False)] = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="For people.", show_default=False)] = None,
    as_json: output.Json = False,
) -> None:
    """Change what is given of a user; it holds for the keys that it has, at once."""
    given: dict[str, Any] = {"role": role, "namespaces": _some(namespace), "active": active, "description": description}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise errors.InvalidRequest("Say what to change: --role, --namespace, --active, --inactive or --description.")
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("PATCH", f"{ROUTE}/{name}", body), as_json)


@app.command()
def delete(ctx: typer.Context, name: User, yes: output.Yes = False, as_json: output.Json = False) -> None:
    """Delete a user and revoke all its keys. `update --inactive` is for a while."""
    output.confirm(f"Delete {name} and revoke all its keys?", yes)
    with client.connect(ctx.obj) as api:
        api.call("DELETE", f"{ROUTE}/{name}")
    output.show_done({"deleted": name}, f"{name} is deleted and its keys are revoked.", as_json)


@me.command()
def whoami(ctx: typer.Context, as_json: output.Json = False) -> None:
    """Show who your key belongs to, and what it may do."""
    with client.connect(ctx.obj) as api:
        found = api.call("GET", "/manage/api/whoami-v2")
        url = api.url
    if as_json:
        output.show_json(found)
        return
    others = ", ".join(row["name"] for row in found["orgs"])
    place = {"namespace": found["name"], "more namespaces": others, "platform": url}
    output.show_fields({"user": found["fullname"], "role": found["role"], "tenant": found["tenant"], **place})


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    state = "active" if row["active"] else "stopped"
    return row["name"], row["kind"], row["role"], row["tenant"], ", ".join(row["namespaces"]) or "all", state


def _some(names: list[str] | None) -> list[str] | None:
    """An empty name empties the list; none given is nothing said."""
    return None if not names else [name for name in names if name]
