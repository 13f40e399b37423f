"""`moorage audit ...`: the audit log, shown and checked."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cluster import audit, errors, home, store
from cluster.cli import client, output
from cluster.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The audit log: who changed what, what was refused, and whether the log is whole.")

ROUTE = "/manage/v2/audit"


@app.command("ls")
def list_(
    ctx: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    key: Annotated[str | None, typer.Option(help="Only what was done with the key of this id.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, `endpoint.update`, or all of a kind: `endpoint.`")] = None,
    resource: Annotated[str | None, typer.Option(help="Only what was done to this, `namespace/name`, or to what lies below.")] = None,
    outcome: Annotated[str | None, typer.Option(help="`done` or `refused`.")] = None,
    since: Annotated[str | None, typer.Option(help="A time like 2026-01-31T12:00:00Z, or Unix seconds.")] = None,
    until: Annotated[str | None, typer.Option(help="As --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 50,
    as_json: output.Json = False,
) -> None:
    """List what was changed and what was refused, newest first."""
    given = {"actor": actor, "key": key, "action": action, "resource": resource, "outcome": outcome, "since": since, "until": until}
    with client.connect(ctx.obj) as api:
        found = api.call("GET", ROUTE, params={name: value for name, value in given.items() if value is not None} | {"limit": limit})[
            "items"
        ]
    if as_json:
        output.show_json(found)
        return
    columns = ("row", "at", "actor", "key", "from", "action", "resource", "status", "what")
    output.show_table(columns, [_line(row) for row in found], empty="There is no such row.")


@app.command()
def verify(
    ctx: typer.Context,
    over_api: Annotated[bool, typer.Option("--api", help="Let the running platform check, with an operator's key.")] = False,
    as_json: output.Json = False,
) -> None:
    """Check that no row was edited, removed, moved or cut off. The exit code is 1 when one was.

    Reads the database itself, with the cluster secret of this machine's platform, which need not run.
    """
    found = _over_api(ctx) if over_api else _directly(Settings())
    if as_json:
        output.show_json(found)
    elif found["intact"]:
        output.show_text(f"The audit log is whole: {found['rows']} rows, the newest with the hash {found['hash'] or '(none)'}.")
    else:
        output.show_text(f"The audit log is NOT whole. {found['problem']} {found['rows']} rows before it fit.")
    if found["warning"] and not as_json:
        output.say(found["warning"])
    raise typer.Exit(0 if found["intact"] else 1)


def _over_api(ctx: typer.Context) -> dict[str, Any]:
    with client.connect(ctx.obj) as api:
        return dict(api.call("GET", f"{ROUTE}/verify"))


def _directly(settings: Settings) -> dict[str, Any]:
    """Raises InvalidRequest where there is no platform's folder, or no database yet."""
    settings = home.absolute(settings)
    place = home.of(settings)
    if not place.secret.exists():
        raise errors.InvalidRequest(f"{place.secret} is missing: run this where the platform was started, or with --api.")
    if settings.database_url is None and not (place.folder / "moorage.db").exists():
        raise errors.InvalidRequest("There is no database yet: `moorage up` makes it.")
    database = store.open_store(settings.database)
    try:
        return audit.AuditLog(database, place.secret.read_bytes().strip(), place.folder).verify().wire()
    finally:
        database.close()


def _line(row: dict[str, Any]) -> tuple[object, ...]:
    place = (row["seq"], row["at"], row["actor"], row["keyId"], row["source"], row["action"], row["resource"], row["status"])
    return (*place, _what(row["detail"]))


def _what(detail: dict[str, Any]) -> str:
    """What was changed, or why it was refused and how often."""
    if "code" in detail:
        times = detail.get("times", 1)
        return f"{detail['code']}{f', {times} times' if times > 1 else ''}"
    changed = detail.get("changed", {})
    if isinstance(changed, list):
        return ", ".join(changed)
    return ", ".join(f"{name}: {json.dumps(old)} -> {json.dumps(new)}" for name, (old, new) in list(changed.items())[:4])
