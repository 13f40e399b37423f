"""`moorage chat`: talk to an endpoint from the terminal, through the same route and protocol as every client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cluster import errors
from cluster.cli import client, output
from cluster.cli.endpoints import Name, Namespace

app = typer.Typer(add_completion=False)


class BrokenOff(errors.MoorageError):
    """The answer broke off before its end."""

    code = "broken_off"


@app.command()
def chat(
    ctx: typer.Context,
    name: Name,
    message: Annotated[list[str] | None, typer.Argument(help="What to say. (default: asked for, line by line)", show_default=False)] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.", show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.", show_default=False)] = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Ask once, or go on line by line until an empty line or Ctrl-D. Answers are shown as they come."""
    said: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    with client.connect(ctx.obj, namespace) as api:
        route = f"{api.path(name).replace('/manage/v2/endpoint/', '/endpoints/')}/v1/chat/completions"
        for question in _questions(message):
            said.append({"role": "user", "content": question})
            body = {"model": name.rpartition("/")[2], "messages": said} | ({"max_tokens": max_tokens} if max_tokens else {})
            if as_json:
                output.show_json(api.call("POST", route, body))
                return
            said.append({"role": "assistant", "content": _answer(api, route, body)})


def _questions(message: list[str] | None) -> Iterator[str]:
    """The words of the command line, else standard input: all of it from a pipe, line by line from a person."""
    if message:
        yield " ".join(message)
    elif not sys.stdin.isatty():
        yield sys.stdin.read().strip()
    else:
        while question := _ask():
            yield question


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _answer(api: client.Client, route: str, body: dict[str, Any]) -> str:
    """Show an answer while it comes, and return it. Raises BrokenOff when it does not end as it should."""
    parts: list[str] = []
    with api.sse(route, body | {"stream": True}) as events:
        for data in events:
            if data == "[DONE]":
                output.show_text("")
                return "".join(parts)
            event = json.loads(data)
            if "error" in event:
                raise BrokenOff(str(event["error"].get("message") or BrokenOff.__doc__))
            text = next((choice["delta"].get("content") or "" for choice in event.get("choices", ())), "")
            parts.append(text)
            output.show_text(text, end="")
    raise BrokenOff
