"""`moorage keys ...`: the API keys of an endpoint."""

from __future__ import annotations

import typer

from cluster.cli import client, key_words, limits, output
from cluster.cli.endpoints import Name, Namespace
from cluster.cli.key_words import Description, KeyId, Overlap

app = typer.Typer(no_args_is_help=True, help="The API keys of an endpoint.")


@app.command()
def create(
    ctx: typer.Context,
    name: Name,
    description: Description = None,
    expires: limits.Expires = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    tpd: limits.Tpd = None,
    concurrency: limits.Concurrency = None,
    budget: limits.Budget = None,
    budget_period: limits.BudgetPeriod = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    body = key_words.fields(description, expires, limits.body(rpm, tpm, tpd, concurrency, budget, budget_period))
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, "/keys"), body)
    key_words.show_new(made, f"Key {made['id']} of {name}. It is shown this once:", as_json)


@app.command("ls")
def list_(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the keys of an endpoint, revoked and expired ones too."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(api.path(name, "/keys"))
    if as_json:
        output.show_json(found)
        return
    rows = [
        (
            key["id"],
            key["status"],
            key["description"],
            limits.words(key),
            key["expiresAt"],
            output.age(key["lastUsedAt"]),
            output.age(key["createdAt"]),
        )
        for key in found
    ]
    output.show_table(("id", "status", "description", "limits", "expires", "last used", "age"), rows)


@app.command()
def describe(ctx: typer.Context, name: Name, key: KeyId, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show one key, without its secret."""
    with client.connect(ctx.obj, namespace) as api:
        key_words.show(api.call("GET", api.path(name, f"/keys/{key}")), as_json)


@app.command()
def edit(
    ctx: typer.Context,
    name: Name,
    key: KeyId,
    description: Description = None,
    expires: limits.Expires = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    tpd: limits.Tpd = None,
    concurrency: limits.Concurrency = None,
    budget: limits.Budget = None,
    budget_period: limits.BudgetPeriod = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Change a key's description, limits or expiry; what is not given stays."""
    body = key_words.fields(description, expires, limits.body(rpm, tpm, tpd, concurrency, budget, budget_period))
    with client.connect(ctx.obj, namespace) as api:
        key_words.edit(api, api.path(name, f"/keys/{key}"), body, as_json)


@app.command()
def rotate(
    ctx: typer.Context,
    name: Name,
    key: KeyId,
    overlap: Overlap = "1h",
    expires: limits.Expires = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Replace a key by a new one with the same description and limits; both work during the overlap."""
    with client.connect(ctx.obj, namespace) as api:
        key_words.rotate(api, api.path(name, f"/keys/{key}"), overlap, expires, as_json)


@app.command()
def revoke(ctx: typer.Context, name: Name, key: KeyId, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj, namespace) as api:
        key_words.revoke(api, api.path(name, f"/keys/{key}"), as_json)
