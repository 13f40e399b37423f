"""Writes cluster/data/vllm_flags.json from the argument parser of the installed vLLM: `python -m deployments.llm_flags [FILE]`.

To be run when the range of vLLM versions changes; a test says when the table is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from deployments import vllm_api

TABLE = Path(__file__).resolve().parent.parent / "cluster" / "data" / "vllm_flags.json"
HELP = 600
"""Characters of a flag's documentation that are kept."""
KINDS = {"int": "int", "float": "float", "str": "str", "human_readable_int": "size", "human_readable_int_or_auto": "size or auto"}
JSON_KINDS = ("loads", "parse_dataclass", "_parse_dict", "union_dict_and_str")


def dump() -> dict[str, Any]:
    """The table: `{"vllm": version, "flags": {"--name": {"kind", "nargs", "aliases", "negation"?, "choices"?, "default"?, "help"}}}`."""
    actions = [action for action in vllm_api.argument_parser()._actions if action.option_strings and action.dest != "help"]
    flags = {action.option_strings[0]: describe(action) for action in actions}
    return {"vllm": vllm_api.version(), "flags": dict(sorted(flags.items()))}


def describe(action: argparse.Action) -> dict[str, Any]:
    """One flag's row. `nargs` is `0`, `1`, `?` or `+`; a kind of `text` is not checked."""
    names = action.option_strings[1:]
    negation = next((name for name in names if name.startswith("--no-")), None)
    row: dict[str, Any] = {
        "kind": "flag" if action.nargs == 0 else kind(action),
        "nargs": str(action.nargs) if action.nargs is not None else "1",
        "aliases": [name for name in names if name != negation],
    }
    if negation:
        row["negation"] = negation
    if action.choices:
        row["choices"] = [None if choice is None else str(choice) for choice in action.choices]
    if isinstance(action.default, bool | int | float | str) and action.default != argparse.SUPPRESS:
        row["default"] = action.default
    row["help"] = " ".join((action.help or "").replace("%%", "%").split())[:HELP]
    return row


def kind(action: argparse.Action) -> str:
    """What a value must look like."""
    converter: Any = action.type
    while getattr(converter, "__closure__", None) and converter.__name__ in ("_optional_type", "_parse_type"):
        converter = next(cell.cell_contents for cell in converter.__closure__)
    name = getattr(converter, "__name__", "str")
    return "json" if name in JSON_KINDS[:3] else KINDS.get(name, "text")


def main() -> None:
    """Writes the table to the file given, else to its place in the package."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    target.parent.mkdir(parents=True, exist_ok=True)
    sys.argv.append("--help")  # else vLLM, which looks at the arguments when it is imported, leaves its documentation out
    target.write_text(json.dumps(dump(), indent=1, sort_keys=False) + "\n")


if __name__ == "__main__":
    main()
