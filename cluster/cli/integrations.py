"""`moorage integrations ...`: named credentials for the Hugging Face Hub, object stores and registries, which endpoints refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from cluster import credentials
from cluster.cli import client, output, secrets, values
from cluster.cli.endpoints import Namespace
from cluster.cli.secrets import Description, Name
from cluster.errors import InvalidRequest

app = typer.Typer(no_args_is_help=True, help="Named credentials that models, members and adapters refer to (`--integration`).")

Kind = Annotated[str, typer.Option(help=f"{', '.join(credentials.KINDS)}.", show_default=False)]
From = Annotated[
    list[str] | None,
    typer.Option("--from", help="FIELD=VARIABLE or FIELD=@FILE: where a credential is read from. (default: it is asked for)"),
]
Field = Annotated[
    list[str] | None, typer.Option("--field", help="FIELD=VALUE of what is no secret: endpoint, region, endpointUrl, server, username.")
]


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    kind: Kind,
    source: From = None,
    field: Field = None,
    description: Description = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Keep credentials under a name. They are never shown again."""
    if kind not in credentials.KINDS:
        raise InvalidRequest(f"--kind is one of {', '.join(credentials.KINDS)}.")
    home, _, short = name.rpartition("/")
    given = _given(source or (), field or ())
    body = {"name": short, "kind": kind, "values": given | _missing(kind, given), "description": description or ""}
    with client.connect(ctx.obj, namespace) as api:
        secrets.show(api.call("POST", secrets.path("integrations", api, home and f"{home}/"), body), as_json)


@app.command("ls")
def list_(ctx: typer.Context, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the integrations, without their values."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(secrets.path("integrations", api))
    columns = ("name", "kind", "fields", "used by", "owner", "changed")
    output.show_items(found, as_json, columns, _cells, "No integrations yet: `moorage integrations create`.")


@app.command()
def describe(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show an integration and who uses it, without its values."""
    with client.connect(ctx.obj, namespace) as api:
        secrets.show(api.call("GET", secrets.path("integrations", api, name)), as_json)


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    source: From = None,
    field: Field = None,
    unset: Annotated[list[str] | None, typer.Option(help="A field that goes.", show_default=False)] = None,
    description: Description = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Change what is given; replicas that start from then on use it, nothing is restarted."""
    changed: dict[str, str | None] = {**_given(source or (), field or ()), **dict.fromkeys(unset or ())}
    body = {**({"values": changed} if changed else {}), **({} if description is None else {"description": description})}
    if not body:
        raise InvalidRequest("Say what to change: --from, --field, --unset or --description.")
    with client.connect(ctx.obj, namespace) as api:
        secrets.show(api.call("PATCH", secrets.path("integrations", api, name), body), as_json)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    yes: output.Yes = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Forget an integration that no endpoint refers to."""
    secrets.remove(ctx, "integrations", name, yes, namespace, as_json)


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    fields, users = ", ".join(item["fields"]), ", ".join(item["usedBy"])
    return item["name"], item["kind"], fields, users, item["owner"], output.age(item["updatedAt"])


def _given(sources: Iterable[str], fields: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in sources:
        name, source = values.pair(text, "--from")
        found[name] = values.of(source, name)
    for text in fields:
        name, value = values.pair(text, "--field")
        if any(name in kind and kind[name].hidden for kind in credentials.KINDS.values()):
            raise InvalidRequest(f"{name} is secret, and a command line is not: say --from {name}=VARIABLE or --from {name}=@FILE.")
        found[name] = value
    return found


def _missing(kind: str, given: Mapping[str, str]) -> dict[str, str]:
    """What is required and was not given, asked for."""
    names = [name for name, field in credentials.KINDS[kind].items() if field.required and name not in given]
    if len(names) > 1 and not values.interactive():
        raise InvalidRequest(f"{' and '.join(names)} are missing: give each by --from FIELD=VARIABLE, or --field.")
    return {name: values.asked(name) for name in names}
