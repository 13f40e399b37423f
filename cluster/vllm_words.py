"""vLLM's command line without vLLM: the generated table of its flags, words -> settings, and whether a value is of its flag's kind.

Which flags a user may set, and how they go together, is `cluster.vllm_flags`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from cluster import errors

SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
MULTIPLIERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
PARAM = "model.args"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One flag as given. `flag` is its full name, `key` the rest of a dotted one (`--compilation-config.mode`)."""

    flag: str
    values: tuple[str, ...] = ()
    negated: bool = False
    key: str = ""

    @property
    def text(self) -> str:
        """The value as one string, for comparing."""
        return " ".join(self.values) if self.values else str(not self.negated).lower()


@functools.cache
def flags() -> Mapping[str, Mapping[str, Any]]:
    """Full name -> row; see deployments/llm_flags.py for its fields."""
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(resources.files("cluster").joinpath("data/vllm_flags.json").read_text())
    return table["flags"]


def parse(words: Sequence[str]) -> list[Setting]:
    """The settings in `words`. Raises InvalidRequest on unknown flags, on values that are missing or too many."""
    settings: list[Setting] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            raise errors.InvalidRequest(f"{word!r} stands where a flag should: write `--name value`", param=PARAM)
        name, equals, value = word.partition("=")
        setting = _named(name)
        row = flags()[setting.flag]
        values = [value] if equals else _take(rest, row["nargs"])
        _check_count(name, row["nargs"], values)
        settings.append(dataclasses.replace(setting, values=tuple(values)))
    return settings


def check_value(setting: Setting) -> None:
    """Raises InvalidRequest when a value is not of its flag's kind or none of its choices."""
    row = flags()[setting.flag]
    for value in setting.values:
        if value in ("", "None") and None in row.get("choices", [None]):
            continue
        if "choices" in row and not setting.key:
            if value not in row["choices"]:
                known = ", ".join(choice for choice in row["choices"] if choice is not None)
                raise _wrong(setting.flag, f"one of {known}", value)
        elif not setting.key and not KINDS[row["kind"]](value):
            raise _wrong(setting.flag, WORDS[row["kind"]], value)


def size(text: str) -> int | None:
    """The number in `text` such as 16384, 16k (16,000), 16K (16,384) or 25.6k; None when it is none."""
    match = SIZE.fullmatch(text.strip())
    return int(float(match[1]) * MULTIPLIERS[match[2]]) if match else None


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-\d.*", word)


def _take(rest: list[str], nargs: str) -> list[str]:
    """Takes the values that follow a flag from `rest`."""
    limit = {"0": 0, "1": 1, "?": 1}.get(nargs, len(rest))
    values: list[str] = []
    while rest and len(values) < limit and not _is_flag(rest[0]):
        values.append(rest.pop(0))
    return values


def _check_count(name: str, nargs: str, values: Sequence[str]) -> None:
    if nargs == "0" and values:
        raise errors.InvalidRequest(f"{name} takes no value", param=PARAM)
    if nargs in ("1", "+") and not values:
        raise errors.InvalidRequest(f"{name} needs a value", param=PARAM)


def _named(name: str) -> Setting:
    """The setting that `name` means: vLLM takes `_` for `-`, short names, `--no-name`, and dotted keys of JSON flags."""
    dashed = name.replace("_", "-") if name.startswith("--") else name
    base, _, key = dashed.partition(".")
    found = _names().get(base)
    if found is None or (key and flags()[found.flag]["kind"] != "json"):
        close = difflib.get_close_matches(base, [known for known in _names() if known.startswith("--")], n=1, cutoff=0.7)
        hint = f": did you mean {close[0]}?" if close else ""
        raise errors.InvalidRequest(f"vLLM has no flag {name}{hint}", param=PARAM)
    return dataclasses.replace(found, key=key)


@functools.cache
def _names() -> Mapping[str, Setting]:
    names: dict[str, Setting] = {}
    for flag, row in flags().items():
        names |= {name: Setting(flag) for name in (flag, *row["aliases"])}
        if "negation" in row:
            names[row["negation"]] = Setting(flag, negated=True)
    return names


def _wrong(flag: str, wanted: str, value: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"{flag} must be {wanted}, not {value[:80]!r}", param=PARAM)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_float(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


KINDS: Mapping[str, Callable[[str], bool]] = {
    "int": lambda text: re.fullmatch(r"\s*[+-]?\d+\s*", text) is not None,
    "float": _is_float,
    "size": lambda text: size(text) is not None,
    "size or auto": lambda text: text.strip().lower() in ("-1", "auto") or size(text) is not None,
    "json": _is_json,
    "str": lambda text: True,  # noqa: ARG005
    "text": lambda text: True,  # noqa: ARG005
}
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "size": "a number such as 16384 or 16K",
    "size or auto": "a number such as 16384 or 16K, or auto",
    "json": "JSON",
}
