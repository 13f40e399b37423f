"""`moorage secrets ...`: named secret values of a namespace, which endpoints refer to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli import client, output, values
from cluster.cli.endpoints import Namespace

app = typer.Typer(no_args_is_help=True, help="Named secret values, which endpoints get as variables (`--secret-ref`).")

Name = Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.", show_default=False)]
From = Annotated[
    str | None,
    typer.Option("--from", help="VARIABLE, @FILE, or - for standard input. (default: it is asked for)", show_default=False),
]
Description = Annotated[str | None, typer.Option("--description", "-d", show_default=False)]


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    source: From = None,
    description: Description = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Keep a value under a name. It is never shown again."""
    home, _, short = name.rpartition("/")
    body = {"name": short, "value": values.of(source or "-", f"The value of {short}"), "description": description or ""}
    with client.connect(ctx.obj, namespace) as api:
        show(api.call("POST", path("secrets", api, home and f"{home}/"), body), as_json)


@app.command("ls")
def list_(ctx: typer.Context, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the secrets, without their values."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(path("secrets", api))
    columns, empty = ("name", "description", "used by", "owner", "changed"), "No secrets yet: `moorage secrets create`."
    output.show_items(found, as_json, columns, _cells, empty)


@app.command()
def describe(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show a secret and who uses it, without its value."""
    with client.connect(ctx.obj, namespace) as api:
        show(api.call("GET", path("secrets", api, name)), as_json)


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    source: From = None,
    description: Description = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Give a secret another value, which replicas that start from then on use; nothing is restarted."""
    body: dict[str, Any] = {} if description is None else {"description": description}
    if source is not None or description is None:
        body["value"] = values.of(source or "-", f"The new value of {name}")
    with client.connect(ctx.obj, namespace) as api:
        show(api.call("PATCH", path("secrets", api, name), body), as_json)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    yes: output.Yes = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Forget a secret that no endpoint refers to."""
    remove(ctx, "secrets", name, yes, namespace, as_json)


@app.command()
def reseal(ctx: typer.Context, as_json: output.Json = False) -> None:
    """Seal every stored value of the platform under the newest key of MOORAGE_VAULT_KEY_FILE. For the operator."""
    with client.connect(ctx.obj) as api:
        found = api.call("POST", "/manage/v2/vault/reseal")
    output.show_done(found, f"{found['values']} values are sealed under the newest key.", as_json)


def path(shelf: str, api: client.Client, name: str = "") -> str:
    """Route of a secret or integration (`name` or `namespace/name`), or of all of a namespace (`namespace/`, or '')."""
    home, _, short = name.rpartition("/")
    return f"/manage/v2/{shelf}/{home or api.namespace}" + (f"/{short}" if short else "")


def remove(ctx: typer.Context, shelf: str, name: str, yes: bool, namespace: str | None, as_json: bool) -> None:
    """Delete one of either shelf, after asking."""
    output.confirm(f"Forget {name}?", yes)
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", path(shelf, api, name))
    output.show_done({"deleted": name}, f"{name} is forgotten.", as_json)


def show(item: dict[str, Any], as_json: bool) -> None:
    """One secret or integration."""
    if as_json:
        output.show_json(item)
        return
    lists: dict[str, object] = {name: ", ".join(item[name]) for name in ("fields", "usedBy") if name in item}
    output.show_fields({**item, **lists})


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    return item["name"], item["description"], ", ".join(item["usedBy"]), item["owner"], output.age(item["updatedAt"])
