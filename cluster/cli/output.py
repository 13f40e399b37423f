"""How commands answer: tables and colours on a terminal, plain tab-separated lines in a pipe, JSON alone with --json.

Results go to standard output, progress to standard error, so that a script can read the one and a person see the other.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable: JSON on standard output and nothing else.")]
COLOURS = {
    "running": "green",
    "ok": "green",
    "active": "green",
    "initializing": "yellow",
    "pending": "yellow",
    "updating": "yellow",
    "warn": "yellow",
    "not answering": "red",
    "failed": "red",
    "fail": "red",
    "updateFailed": "red",
    "stopped": "red",
    "revoked": "dim",
    "expired": "dim",
    "paused": "dim",
    "scaledToZero": "dim",
}


def show_json(value: Any) -> None:
    """The whole answer of a command with --json."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def show_json_line(value: Any) -> None:
    """One of many values, on a line of its own."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "") -> None:
    """Rows of cells. `empty` is told to the person when there are none."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    if not texts and empty:
        say(empty)
        return
    if not sys.stdout.isatty():
        for line in ([column.upper() for column in columns], *texts):
            print("\t".join(line))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in texts:
        table.add_row(*(_coloured(cell) for cell in line))
    Console().print(table)


def show_fields(fields: Mapping[str, object]) -> None:
    """One thing's fields, a line each; those without a value are left out."""
    shown = {name: _cell(value) for name, value in fields.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=True)
    for name, value in shown.items():
        if terminal:
            console.print(f"[bold]{name:<{width}}[/bold]  {_coloured(value)}")
        else:
            print(f"{name}\t{value}")


def show_one(fields: Mapping[str, object], as_json: bool) -> None:
    """One thing, in either form."""
    if as_json:
        show_json(fields)
    else:
        show_fields(fields)


def show_items(
    items: Sequence[dict[str, Any]],
    as_json: bool,
    columns: Sequence[str],
    cells: Callable[[dict[str, Any]], Sequence[object]],
    empty: str = "",
) -> None:
    """Many things, in either form: in a table by their `cells`."""
    if as_json:
        show_json(items)
    else:
        show_table(columns, [cells(item) for item in items], empty)


def show_done(value: Mapping[str, object], sentence: str, as_json: bool) -> None:
    """What a command has done, in either form."""
    if as_json:
        show_json(value)
    else:
        show_text(sentence)


def show_text(text: str, end: str = "\n") -> None:
    """Plain text of a result."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def confirm(question: str, yes: bool) -> None:
    """Asks, unless that was answered on the command line; anything but yes ends the command."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def say(line: str) -> None:
    """A line of progress or of explanation."""
    print(line, file=sys.stderr, flush=True)


def age(stamp: str | float | None, now: float | None = None) -> str:
    """How long ago a time (ISO with Z, or Unix seconds) was: 5s, 12m, 3h, 8d."""
    if stamp in (None, ""):
        return ""
    then = float(stamp) if isinstance(stamp, int | float) else _seconds(str(stamp))
    passed = max(0, int((time.time() if now is None else now) - then))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if passed >= size:
            return f"{passed // size}{unit}"
    return f"{passed}s"


def size(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def _seconds(stamp: str) -> float:
    # Python 3.11's parser takes the Z and any number of digits of a second.
    return datetime.datetime.fromisoformat(stamp).timestamp()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _coloured(text: str) -> str:
    safe = text.replace("[", r"\[")
    colour = COLOURS.get(text)
    return f"[{colour}]{safe}[/{colour}]" if colour else safe
