"""Where secret values come from: a variable, a file, a question. Never from the command line, which everyone on the machine can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from cluster.errors import InvalidRequest


def of(source: str, what: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value that `VARIABLE`, `@FILE` or `-` (a question, or standard input) means; `what` is what people call it.

    Raises InvalidRequest. Its message never repeats the source: it may be the value, given by mistake.
    """
    if source == "-":
        return asked(what)
    if source.startswith("@"):
        try:
            return Path(source[1:]).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"The file for {what} cannot be read ({getattr(exc, 'strerror', None) or 'it is not text'}).") from exc
    if source not in environment:
        raise InvalidRequest(f"{what} is read from a variable, @FILE or - (standard input): there is no variable of the name given.")
    return environment[source]


def interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def asked(what: str) -> str:
    """Without showing it where a person types; else all of standard input. Raises InvalidRequest for nothing."""
    if interactive():
        value: str = typer.prompt(what, hide_input=True, err=True)
        return value
    value = sys.stdin.read().strip()
    if not value:
        raise InvalidRequest(f"{what} is missing: pipe it in, or name a variable or @FILE.")
    return value


def pair(text: str, option: str) -> tuple[str, str]:
    """FIELD=SOURCE. Raises InvalidRequest without repeating it."""
    name, sign, value = text.partition("=")
    if not (sign and name and value):
        raise InvalidRequest(f"{option} takes FIELD=... with something on both sides.")
    return name, value
