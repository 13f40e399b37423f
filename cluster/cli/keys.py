"""`moorage keys ...`: the API keys of an endpoint."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli import client, limits, output
from cluster.cli.endpoints import Name, Namespace
from cluster.errors import InvalidRequest

app = typer.Typer(no_args_is_help=True, help="The API keys of an endpoint.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `moorage keys ls` shows it.", show_default=False)]
Description = Annotated[str | None, typer.Option("--description", "-d", help="What the key is for.", show_default=False)]


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
    body = _body(description, expires, limits.body(rpm, tpm, tpd, concurrency, budget, budget_period))
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, "/keys"), body)
    _show_new(made, f"Key {made['id']} of {name}. It is shown this once:", as_json)


@app.command("ls")
def list_(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the keys of an endpoint, revoked and expired ones too."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("GET", api.path(name, "/keys"))["items"]
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
        _show(api.call("GET", api.path(name, f"/keys/{key}")), as_json)


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
    body = _body(description, expires, limits.body(rpm, tpm, tpd, concurrency, budget, budget_period))
    if not body:
        raise InvalidRequest("Say what to change: --description, --expires, or a limit.")
    with client.connect(ctx.obj, namespace) as api:
        _show(api.call("PATCH", api.path(name, f"/keys/{key}"), body), as_json)


@app.command()
def rotate(
    ctx: typer.Context,
    name: Name,
    key: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key goes on working: 0, 30m, 24h, ... at most 90d.")] = "1h",
    expires: limits.Expires = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Replace a key by a new one with the same description and limits; both work during the overlap."""
    seconds = limits.duration(overlap)
    if seconds is None:
        raise InvalidRequest(f"--overlap takes a time such as 0, 30m or 24h, not {overlap!r}.")
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, f"/keys/{key}/rotate"), {"overlapSeconds": seconds, **limits.expiry(expires)})
    until = f"The old one works for {overlap} more" if seconds else "The old one has ended"
    _show_new(made, f"Key {made['id']} of {name} replaces {key}. {until}. The new one is shown this once:", as_json)


@app.command()
def revoke(ctx: typer.Context, name: Name, key: KeyId, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", api.path(name, f"/keys/{key}"))
    if as_json:
        output.show_json({"revoked": key})
    else:
        output.show_text(f"Key {key} is revoked.")


def _body(description: str | None, expires: str | None, given: dict[str, Any]) -> dict[str, Any]:
    return {**({} if description is None else {"description": description}), **limits.expiry(expires), **given}


def _show_new(made: dict[str, Any], words: str, as_json: bool) -> None:
    """The key's text on a line of its own, which is all of standard output."""
    if as_json:
        output.show_json(made)
        return
    output.say(words)
    output.show_text(made["key"])


def _show(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(key)
        return
    named = ("requestsPerMinute", "tokensPerMinute", "tokensPerDay", "concurrency", "budget", "budgetPeriod")
    output.show_fields({name: value for name, value in key.items() if name not in named} | {"limits": limits.words(key)})
