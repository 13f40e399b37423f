"""What `moorage keys` and `moorage platform-keys` have in common: options, what is sent, how keys are replaced, revoked and shown."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli import client, limits, output
from cluster.errors import InvalidRequest

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `ls` shows it.", show_default=False)]
Description = Annotated[str | None, typer.Option("--description", "-d", help="What the key is for.", show_default=False)]
Overlap = Annotated[str, typer.Option(help="How long the old key goes on working: 0, 30m, 24h, ... at most 90d.", metavar="TIME")]


def fields(description: str | None, expires: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The body of a new or changed key; `given` are its limits. Raises InvalidRequest."""
    return {**({} if description is None else {"description": description}), **limits.expiry(expires), **given}


def edit(api: client.Client, path: str, body: dict[str, Any], as_json: bool) -> None:
    """Change the key at `path` and show it. Raises InvalidRequest where nothing is to be changed."""
    if not body:
        raise InvalidRequest("Say what to change: --description, --expires, or a limit.")
    show(api.call("PATCH", path, body), as_json)


def rotate(api: client.Client, path: str, overlap: str, expires: str | None, as_json: bool) -> None:
    """Replace the key at `path` and show the new one. Raises InvalidRequest."""
    seconds = limits.duration(overlap)
    if seconds is None:
        raise InvalidRequest(f"--overlap takes a time such as 0, 30m or 24h, not {overlap!r}.")
    made = api.call("POST", f"{path}/rotate", {"overlapSeconds": seconds, **limits.expiry(expires)})
    until = f"The old one works for {overlap} more" if seconds else "The old one has ended"
    show_new(made, f"Key {made['id']} replaces {path.rpartition('/')[2]}. {until}. The new one is shown this once:", as_json)


def revoke(api: client.Client, path: str, as_json: bool) -> None:
    """Revoke the key at `path`."""
    api.call("DELETE", path)
    key = path.rpartition("/")[2]
    output.show_done({"revoked": key}, f"Key {key} is revoked.", as_json)


def show_new(made: dict[str, Any], words: str, as_json: bool) -> None:
    """A new key's text on a line of its own, which is all of standard output."""
    _warn(made)
    if as_json:
        output.show_json(made)
        return
    output.say(words)
    output.show_text(made["key"])


def show(key: dict[str, Any], as_json: bool) -> None:
    """One key, its limits in words."""
    _warn(key)
    if as_json:
        output.show_json(key)
        return
    named = ("requestsPerMinute", "tokensPerMinute", "tokensPerDay", "concurrency", "budget", "budgetPeriod", "warnings")
    output.show_fields({name: value for name, value in key.items() if name not in named} | {"limits": limits.words(key)})


def _warn(key: dict[str, Any]) -> None:
    for warning in key.get("warnings") or ():
        output.say(f"Warning: {warning}")
