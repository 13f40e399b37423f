"""`moorage platform-keys ...`: the keys by which people and service accounts act, here and at endpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli import client, key_words, limits, output
from cluster.cli.key_words import Description, KeyId, Overlap

app = typer.Typer(no_args_is_help=True, help="The keys of people and service accounts: your own, for an admin those of its tenant.")

User = Annotated[str | None, typer.Option(help="Whose it is. (default: yours)", show_default=False)]
ROUTE = "/manage/v2/keys"


@app.command("ls")
def list_(ctx: typer.Context, user: User = None, as_json: output.Json = False) -> None:
    """List the keys, revoked ones too."""
    with client.connect(ctx.obj) as api:
        found = api.items(ROUTE, user=user)
    if as_json:
        output.show_json(found)
        return
    rows = [
        (row["id"], row["user"], row["role"], row["status"], row["description"], output.age(row["lastUsedAt"]), row["expiresAt"])
        for row in found
    ]
    output.show_table(("id", "user", "role", "status", "description", "last used", "expires"), rows)


@app.command()
def create(
    ctx: typer.Context,
    user: User = None,
    role: Annotated[str | None, typer.Option(help="The most it may do. (default: as much as its user)", show_default=False)] = None,
    expires: limits.Expires = None,
    description: Description = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    tpd: limits.Tpd = None,
    concurrency: limits.Concurrency = None,
    budget: limits.Budget = None,
    budget_period: limits.BudgetPeriod = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    given = limits.body(rpm, tpm, tpd, concurrency, budget, budget_period)
    whose = {name: value for name, value in (("user", user), ("role", role)) if value is not None}
    with client.connect(ctx.obj) as api:
        made = api.call("POST", ROUTE, whose | key_words.fields(description, expires, given))
    key_words.show_new(made, f"Key {made['id']} of {made['user']}, role {made['role']}. It is shown this once:", as_json)


@app.command()
def describe(ctx: typer.Context, key: KeyId, as_json: output.Json = False) -> None:
    """Show one key, without its secret."""
    with client.connect(ctx.obj) as api:
        key_words.show(api.call("GET", f"{ROUTE}/{key}"), as_json)


@app.command()
def edit(
    ctx: typer.Context,
    key: KeyId,
    expires: limits.Expires = None,
    description: Description = None,
    rpm: limits.Rpm = None,
    tpm: limits.Tpm = None,
    tpd: limits.Tpd = None,
    concurrency: limits.Concurrency = None,
    budget: limits.Budget = None,
    budget_period: limits.BudgetPeriod = None,
    as_json: output.Json = False,
) -> None:
    """Change what is given of a key. Members only tighten limits; admins loosen them too."""
    given = limits.body(rpm, tpm, tpd, concurrency, budget, budget_period)
    with client.connect(ctx.obj) as api:
        key_words.edit(api, f"{ROUTE}/{key}", key_words.fields(description, expires, given), as_json)


@app.command()
def rotate(ctx: typer.Context, key: KeyId, overlap: Overlap = "1h", expires: limits.Expires = None, as_json: output.Json = False) -> None:
    """Replace a key by one that may do the same; both work during the overlap. Members say no later end than there was."""
    with client.connect(ctx.obj) as api:
        key_words.rotate(api, f"{ROUTE}/{key}", overlap, expires, as_json)


@app.command()
def revoke(ctx: typer.Context, key: KeyId, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj) as api:
        key_words.revoke(api, f"{ROUTE}/{key}", as_json)
