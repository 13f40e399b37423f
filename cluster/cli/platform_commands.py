"""`moorage up`, `down`, `status`, `doctor`, `join`, `config`: the commands about the platform itself."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import doctor as checks
from cluster import errors, home, platform, ray_node
from cluster.cli import client, output
from cluster.settings import Settings

app = typer.Typer(add_completion=False)

Port = Annotated[int | None, typer.Option(help="Port that clients use. (default: 8000, or MOORAGE_PORT)", show_default=False)]
Address = Annotated[
    str | None,
    typer.Option(help="Use a Ray cluster that runs already (host:port, or auto) instead of starting one.", show_default=False),
]


def settings_with(**given: object) -> Settings:
    """The settings, with what was given on the command line in the place of what the environment says."""
    return Settings().model_copy(update={name: value for name, value in given.items() if value is not None})


@app.command()
def up(port: Port = None, address: Address = None, as_json: output.Json = False) -> None:
    """Start the platform on this machine. Safe to repeat: brings back whatever is missing."""
    outcome = platform.up(settings_with(port=port, address=address), output.say)
    if as_json:
        output.show_json({"url": outcome.credentials.url, "namespace": outcome.credentials.namespace, "already": outcome.already})
        return
    url = outcome.credentials.url
    output.show_text(f"Moorage {'is running already' if outcome.already else 'is running'} at {url}")
    if not outcome.already:
        place = home.of(outcome.settings)
        output.show_fields({"API": f"{url}/v1", "console": f"{url}/console/", "credentials": place.credentials, "logs": place.logs})
    if port is not None and port != outcome.settings.port:
        output.say(f"It keeps port {outcome.settings.port}: run `moorage down` first to change it to {port}.")


@app.command()
def down(as_json: output.Json = False) -> None:
    """Stop the platform: let the endpoints finish what they are doing, then end every process. State is kept."""
    ran = platform.down(Settings(), output.say)
    if as_json:
        output.show_json({"stopped": ran})
    else:
        output.show_text("Moorage has stopped." if ran else "Moorage was not running.")


@app.command()
def status(ctx: typer.Context, as_json: output.Json = False) -> None:
    """Show what runs, the versions, and how many endpoints are in which state. The exit code is 0 when all parts run."""
    seen = platform.status(Settings())
    states = _endpoint_states(ctx) if seen.running else {}
    if as_json:
        output.show_json({**dataclasses.asdict(seen), "endpoints": states})
    else:
        output.show_table(("part", "state", ""), [(part.name, part.state, part.detail) for part in seen.parts])
        output.show_fields({"url": seen.url, **seen.versions})
        output.show_fields(
            {"endpoints": ", ".join(f"{count} {state}" for state, count in states.items()) or "none"} if seen.running else {}
        )
    raise typer.Exit(0 if seen.running else 1)


@app.command()
def doctor(as_json: output.Json = False) -> None:
    """Check Ray, GPUs, disk, memory, ports, model access, clock and secrets. The exit code is 1 when something must be mended."""
    found = checks.examine(Settings())
    if as_json:
        output.show_json([dataclasses.asdict(finding) for finding in found])
    else:
        output.show_table(("check", "", "found", "to mend it"), [dataclasses.astuple(finding) for finding in found])
    raise typer.Exit(1 if any(finding.result == "fail" for finding in found) else 0)


@app.command()
def join(
    address: Annotated[str, typer.Argument(help="host:port of the platform's Ray head; `moorage status` there shows it.")],
    as_json: output.Json = False,
) -> None:
    """Make this machine a worker. Copy $MOORAGE_HOME/secret and ray-token from the head to this machine's first."""
    settings = Settings()
    place = home.of(settings)
    for file in (place.secret, place.ray_token):
        if not file.exists():
            raise errors.InvalidRequest(f"{file} is missing: copy it from the platform's head, readable by you alone.")
    home.prepare(place)
    ray_node.join(settings, address)
    if as_json:
        output.show_json({"joined": address})
    else:
        output.show_text(f"This machine is a worker of {address}. `moorage down` takes it out again.")


@app.command()
def config(as_json: output.Json = False) -> None:
    """Show every setting, its value and where it comes from."""
    rows = [_setting(name, value) for name, value in Settings().model_dump().items()]
    if as_json:
        output.show_json({row["name"]: {"value": row["value"], "source": row["source"]} for row in rows})
    else:
        output.show_table(("setting", "value", "source"), [(row["name"], row["value"], row["source"]) for row in rows])


def _setting(name: str, value: object) -> dict[str, Any]:
    """A database URL's password is left out: what this prints ends up in bug reports."""
    variable = f"MOORAGE_{name.upper()}"
    if name == "database_url" and value is not None:
        value = "(set)"
    shown = str(value) if isinstance(value, Path) else value
    return {"name": name, "value": shown, "source": variable if variable in {key.upper() for key in os.environ} else "default"}


def _endpoint_states(ctx: typer.Context) -> dict[str, int]:
    try:
        with client.connect(ctx.obj) as api:
            return dict(Counter(str(item["status"]["state"]) for item in api.items(api.path())))
    except errors.MoorageError as exc:
        output.say(f"The endpoints could not be listed: {exc.message}")
        return {}
