"""Whether an adapter's weights fit the model beside it: the shapes in the headers of both, nothing of the weights is read.

An engine takes weights that are too small without a word, and answers with noise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster import lora

Shapes = Mapping[str, tuple[int, ...]]
MODULE = re.compile(r"(?P<module>layers\.\d+\..+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
LAYER = re.compile(r"(?:^|\.)(?P<path>layers\.(?P<number>\d+)\..+)\.weight")
LONGEST_HEADER = 100_000_000


def check(name: str, adapter: Path, base: Path | None) -> None:
    """Raises lora.Refused `WrongBase` for an adapter of a model with other layers or sizes.

    Modules that the base stores under another name (experts, fused projections) are left for the engine to judge.
    """
    if base is None:
        return
    modules = dict(_modules(shapes(adapter / lora.WEIGHTS)))
    layers = {match["path"]: shape for file in sorted(base.glob("*.safetensors")) for match, shape in _matching(LAYER, shapes(file))}
    numbers = {path.split(".")[1] for path in layers}
    for (module, side), shape in modules.items():
        if numbers and module.split(".")[1] not in numbers:
            raise _wrong(name, f"it changes layer {module.split('.')[1]}, and the model has {len(numbers)}")
        weight = layers.get(module, ())
        if len(weight) != 2 or len(shape) != 2:
            continue
        has, needs = (shape[1], weight[1]) if side == "A" else (shape[0], weight[0])
        if has != needs:
            raise _wrong(name, f"{module} is {needs} wide in the model and {has} in the adapter")


def shapes(file: Path) -> Shapes:
    """Tensor -> shape, from the header of a safetensors file; empty when it is none (the engine says what is wrong with it)."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            return {}
        try:
            header = json.loads(stream.read(length))
            return {name: tuple(row["shape"]) for name, row in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}


def _modules(found: Shapes) -> Iterator[tuple[tuple[str, str], tuple[int, ...]]]:
    for match, shape in _matching(MODULE, found):
        yield (match["module"], match["side"]), shape


def _matching(pattern: re.Pattern[str], found: Shapes) -> Iterator[tuple[re.Match[str], tuple[int, ...]]]:
    for tensor, shape in found.items():
        match = pattern.search(tensor)
        if match is not None:
            yield match, shape


def _wrong(name: str, why: str) -> lora.Refused:
    return lora.Refused("WrongBase", f"The adapter {name} was made for another model: {why}.")
