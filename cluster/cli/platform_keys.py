"""`moorage platform-keys ...`: the keys by which people and service accounts act, here and at endpoints."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster import errors
from cluster.cli import client, limits, output

app = typer.Typer(no_args_is_help=True, help="The keys of people and service accounts: your own, for an admin those of its tenant.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `ls` shows it.", show_default=False)]
Description = Annotated[str | None, typer.Option("--description", "-d", help="What the key is for.", show_default=False)]
User = Annotated[str | None, typer.Option(help="Whose it is. (default: yours)", show_default=False)]
ROUTE = "/manage/v2/keys"


@app.command("ls")
def list_(ctx: typer.Context, user: User = None, as_json: output.Json = False) -> None:
    """List the keys, revoked ones too."""
    with client.connect(ctx.obj) as api:
        found = api.call("GET", ROUTE, params={"user": user} if user else None)["items"]
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
    body = _given({"user": user, "role": role, "description": description}) | given | limits.expiry(expires)
    with client.connect(ctx.obj) as api:
        _show_new(api.call("POST", ROUTE, body), as_json)


@app.command()
def describe(ctx: typer.Context, key: KeyId, as_json: output.Json = False) -> None:
    """Show one key, without its secret."""
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("GET", f"{ROUTE}/{key}"), as_json)


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
    body = _given({"description": description}) | given | limits.expiry(expires)
    if not body:
        raise errors.InvalidRequest("Say what to change: --description, --expires, or a limit.")
    with client.connect(ctx.obj) as api:
        output.show_one(api.call("PATCH", f"{ROUTE}/{key}", body), as_json)


@app.command()
def rotate(
    ctx: typer.Context,
    key: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key lives on: 30m, 12h, 2d, 0m.", metavar="TIME")] = "1h",
    as_json: output.Json = False,
) -> None:
    """Replace a key by one that may do the same; both live for the overlap. The new one is shown this once."""
    seconds = limits.duration(overlap)
    if seconds is None:
        raise errors.InvalidRequest(f"--overlap takes a time such as 0, 30m or 24h, not {overlap!r}.")
    with client.connect(ctx.obj) as api:
        _show_new(api.call("POST", f"{ROUTE}/{key}/rotate", {"overlapSeconds": seconds}), as_json)


@app.command()
def revoke(ctx: typer.Context, key: KeyId, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj) as api:
        api.call("DELETE", f"{ROUTE}/{key}")
    output.show_done({"revoked": key}, f"Key {key} is revoked.", as_json)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _show_new(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(made)
        return
    output.say(f"Key {made['id']} of {made['user']}, role {made['role']}. It is shown this once:")
    output.show_text(made["key"])
