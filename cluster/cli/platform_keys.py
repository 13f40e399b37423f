"""`moorage platform-keys ...`: the keys by which people and service accounts act, here and at endpoints."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any

import typer

from cluster import errors
from cluster.cli import client, output

app = typer.Typer(no_args_is_help=True, help="The keys of people and service accounts: your own, for an admin those of its tenant.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `ls` shows it.", show_default=False)]
Description = Annotated[str | None, typer.Option("--description", "-d", help="What the key is for.", show_default=False)]
Expires = Annotated[
    str | None, typer.Option(help="30d, 12h, or a date like 2027-01-31; never for no end.", metavar="WHEN", show_default=False)
]
User = Annotated[str | None, typer.Option(help="Whose it is. (default: yours)", show_default=False)]
Requests = Annotated[int | None, typer.Option(help="Most requests in a minute; 0 = no limit.", show_default=False)]
Concurrency = Annotated[int | None, typer.Option(help="Most requests at the same time; 0 = no limit.", show_default=False)]
MinuteTokens = Annotated[int | None, typer.Option("--tokens-per-minute", help="Most tokens in a minute; 0 = no limit.", show_default=False)]
DayTokens = Annotated[int | None, typer.Option("--tokens-per-day", help="Most tokens in a day (UTC); 0 = no limit.", show_default=False)]
Budget = Annotated[float | None, typer.Option(help="Most money in each budget period; 0 = no limit.", show_default=False)]
Period = Annotated[str | None, typer.Option(help="day, week, month or total.", show_default=False)]
ROUTE = "/manage/v2/keys"
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


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
    expires: Expires = None,
    description: Description = None,
    requests_per_minute: Requests = None,
    concurrency: Concurrency = None,
    tokens_per_minute: MinuteTokens = None,
    tokens_per_day: DayTokens = None,
    budget: Budget = None,
    budget_period: Period = None,
    as_json: output.Json = False,
) -> None:
    """Make a key. It is shown this once and never again."""
    limits = _limits(requests_per_minute, concurrency, tokens_per_minute, tokens_per_day, budget, budget_period)
    body = _given({"user": user, "role": role, "description": description}) | limits | _end(expires)
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
    expires: Expires = None,
    description: Description = None,
    requests_per_minute: Requests = None,
    concurrency: Concurrency = None,
    tokens_per_minute: MinuteTokens = None,
    tokens_per_day: DayTokens = None,
    budget: Budget = None,
    budget_period: Period = None,
    as_json: output.Json = False,
) -> None:
    """Change what is given of a key. Members only tighten limits; admins loosen them too."""
    limits = _limits(requests_per_minute, concurrency, tokens_per_minute, tokens_per_day, budget, budget_period)
    body = _given({"description": description}) | limits | _end(expires)
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
    with client.connect(ctx.obj) as api:
        _show_new(api.call("POST", f"{ROUTE}/{key}/rotate", {"overlapSeconds": seconds(overlap, "--overlap")}), as_json)


@app.command()
def revoke(ctx: typer.Context, key: KeyId, as_json: output.Json = False) -> None:
    """Make a key useless at once and for good; it stays listed."""
    with client.connect(ctx.obj) as api:
        api.call("DELETE", f"{ROUTE}/{key}")
    output.show_done({"revoked": key}, f"Key {key} is revoked.", as_json)


def seconds(text: str, option: str) -> int:
    """`90m` in seconds. Raises InvalidRequest."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if found is None:
        raise errors.InvalidRequest(f"{option} takes a number and m, h, d or w, like 12h, not {text!r}.")
    return int(found.group(1)) * UNITS[found.group(2)]


def moment(text: str, now: datetime.datetime) -> str:
    """`30d` or a date (its first second in UTC), as the API takes it. Raises InvalidRequest."""
    if re.fullmatch(r"[0-9]+[mhdw]", text):
        return (now + datetime.timedelta(seconds=seconds(text, "--expires"))).isoformat()
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise errors.InvalidRequest(f"--expires takes 30d, 12h, a date like 2027-01-31, or never, not {text!r}.") from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).isoformat()


def _end(expires: str | None) -> dict[str, Any]:
    if expires is None:
        return {}
    return {"expiresAt": None if expires == "never" else moment(expires, datetime.datetime.now(datetime.UTC))}


def _limits(
    requests: int | None, concurrency: int | None, minute: int | None, day: int | None, budget: float | None, period: str | None
) -> dict[str, Any]:
    tokens = {"tokensPerMinute": minute, "tokensPerDay": day}
    return _given({"requestsPerMinute": requests, "concurrency": concurrency, **tokens, "budget": budget, "budgetPeriod": period})


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _show_new(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(made)
        return
    output.say(f"Key {made['id']} of {made['user']}, role {made['role']}. It is shown this once:")
    output.show_text(made["key"])
