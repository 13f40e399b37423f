"""`moorage keys ...`: the API keys of an endpoint."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli import client, output
from cluster.cli.endpoints import Name, Namespace

app = typer.Typer(no_args_is_help=True, help="The API keys of an endpoint.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `moorage keys ls` shows it.", show_default=False)]
Description = Annotated[str, typer.Option("--description", "-d", help="What the key is for.")]


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    description: Description = "",
    requests_per_minute: Annotated[int, typer.Option(help="Most requests in a minute; 0 = no limit.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Most requests at the same time; 0 = no limit.")] = 0,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    body = {"description": description, "requestsPerMinute": requests_per_minute, "concurrency": concurrency}
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, "/keys"), body)
    if as_json:
        output.show_json(made)
        return
    output.say(f"Key {made['id']} of {name}. It is shown this once:")
    output.show_text(made["key"])


@app.command("ls")
def list_(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the keys of an endpoint, revoked ones too."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("GET", api.path(name, "/keys"))["items"]
    if as_json:
        output.show_json(found)
        return
    rows = [
        (key["id"], key["status"], key["description"], output.age(key["createdAt"]), output.age(key.get("lastUsedAt"))) for key in found
    ]
    output.show_table(("id", "status", "description", "age", "last used"), rows)


@app.command()
def describe(ctx: typer.Context, name: Name, key: KeyId, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show one key, without its secret."""
    with client.connect(ctx.obj, namespace) as api:
        _show(api.call("GET", api.path(name, f"/keys/{key}")), as_json)


@app.command()
def edit(
    ctx: typer.Context, name: Name, key: KeyId, description: Description, namespace: Namespace = None, as_json: output.Json = False
) -> None:
    """Change what a key is described as."""
    with client.connect(ctx.obj, namespace) as api:
        _show(api.call("PATCH", api.path(name, f"/keys/{key}"), {"description": description}), as_json)


@app.command()
def revoke(ctx: typer.Context, name: Name, key: KeyId, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", api.path(name, f"/keys/{key}"))
    if as_json:
        output.show_json({"revoked": key})
    else:
        output.show_text(f"Key {key} is revoked.")


def _show(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(key)
    else:
        output.show_fields(key)
