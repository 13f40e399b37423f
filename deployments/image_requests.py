"""What a request for images asks for, read from Hugging Face's and OpenAI's bodies. Pure; each dialect words its errors itself."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

FORMATS: Mapping[str, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""Encodings by their names, and their media types."""
MULTIPLE = 8
"""Of each side in pixels: pipelines paint in blocks of at least this size."""
SHORTEST = 64
LONGEST_PROMPT = 20_000
HIGHEST_SEED = 2**63 - 1
HUGGING_FACE = frozenset(
    {"negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "seed", "scheduler", "target_size"}
)
OPENAI = frozenset({"prompt", "n", "size", "response_format", "output_format", "seed"}) | (
    HUGGING_FACE - {"height", "width", "target_size"}
)
OPENAI_IGNORED = frozenset({"model", "user", "quality", "style", "background", "moderation", "output_compression", "partial_images"})
"""Taken for compatibility; nothing here depends on them."""


class Invalid(Exception):
    """The request cannot be; `param` is the field to blame."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.message = message
        self.param = param
        super().__init__(message)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What one request may ask for."""

    max_side: int
    max_steps: int
    max_images: int


@dataclasses.dataclass(frozen=True)
class Shape:
    """What requests must have in common to be made together; None = the pipeline's own default."""

    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
    """`count` images of one prompt. `seed` None = any; the second image has the next number, and so on."""

    prompt: str
    shape: Shape
    negative: str | None = None
    count: int = 1
    seed: int | None = None
    format: str = "png"


def hugging_face(content: bytes, accept: str, bounds: Bounds) -> Asked:
    """`{"inputs": prompt, "parameters": {...}}`. Raises Invalid."""
    body = _object(content)
    parameters = body.get("parameters")
    if not isinstance(parameters, dict | None):
        raise Invalid("`parameters` must be an object", "parameters")
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    _refuse_unknown(given.keys() - HUGGING_FACE, HUGGING_FACE)
    size = given.get("target_size")
    if isinstance(size, dict):
        given = {"width": size.get("width"), "height": size.get("height"), **given}
    width, height = (_whole(given, side, SHORTEST, bounds.max_side) for side in ("width", "height"))
    return Asked(
        _text(body, "inputs"),
        _shape(given, _side(width, "width"), _side(height, "height"), bounds),
        _optional_text(given, "negative_prompt"),
        1,
        _whole(given, "seed", 0, HIGHEST_SEED),
        accepted(accept),
    )


def openai(content: bytes, bounds: Bounds) -> Asked:
    """OpenAI's `images/generations`, with a pipeline's own parameters beside. Raises Invalid."""
    body = {name: value for name, value in _object(content).items() if value is not None}
    if body.pop("stream", False):
        raise Invalid("images are not streamed here: leave `stream` out", "stream")
    _refuse_unknown(body.keys() - OPENAI - OPENAI_IGNORED, OPENAI)
    if body.get("response_format", "b64_json") != "b64_json":
        raise Invalid('images are returned in the answer, not kept under a URL: set `response_format` to "b64_json"', "response_format")
    encoding = body.get("output_format", "png")
    if encoding not in FORMATS:
        raise Invalid(f"`output_format` must be one of {', '.join(FORMATS)}", "output_format")
    width, height = _size(body.get("size", "auto"), bounds)
    return Asked(
        _text(body, "prompt"),
        _shape(body, width, height, bounds),
        _optional_text(body, "negative_prompt"),
        _whole(body, "n", 1, bounds.max_images) or 1,
        _whole(body, "seed", 0, HIGHEST_SEED),
        encoding,
    )


def accepted(header: str) -> str:
    """The first encoding that an Accept header names, PNG where it names none."""
    kinds = (part.partition(";")[0].strip().lower() for part in header.split(","))
    return next((name for kind in kinds for name, media in FORMATS.items() if kind in (media, f"image/{name}")), "png")


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise Invalid("the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object")
    return body


def _refuse_unknown(unknown: set[str], known: frozenset[str]) -> None:
    if unknown:
        name = min(unknown)
        raise Invalid(f"`{name[:60]}` is not a parameter here: known are {', '.join(sorted(known))}", name[:60])


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"`{name}` must be a text that says what to paint", name)
    if len(value) > LONGEST_PROMPT:
        raise Invalid(f"`{name}` is over {LONGEST_PROMPT} characters", name)
    return value


def _optional_text(given: Mapping[str, Any], name: str) -> str | None:
    return None if given.get(name) in (None, "") else _text(given, name)


def _whole(given: Mapping[str, Any], name: str, lowest: int, highest: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise Invalid(f"`{name}` must be a whole number from {lowest} to {highest}", name)
    return value


def _side(pixels: int | None, name: str) -> int | None:
    if pixels is not None and pixels % MULTIPLE:
        raise Invalid(f"`{name}` must be a multiple of {MULTIPLE}", name)
    return pixels


def _size(text: Any, bounds: Bounds) -> tuple[int | None, int | None]:
    if text == "auto":
        return None, None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text) if isinstance(text, str) else None
    sides = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(SHORTEST <= side <= bounds.max_side and side % MULTIPLE == 0 for side in sides):
        raise Invalid(
            f'`size` must be "auto" or WIDTHxHEIGHT, each a multiple of {MULTIPLE} from {SHORTEST} to {bounds.max_side}, as 512x512', "size"
        )
    return sides


def _shape(given: Mapping[str, Any], width: int | None, height: int | None, bounds: Bounds) -> Shape:
    guidance = given.get("guidance_scale")
    if guidance is not None and (isinstance(guidance, bool) or not isinstance(guidance, int | float) or not math.isfinite(guidance)):
        raise Invalid("`guidance_scale` must be a number", "guidance_scale")
    if guidance is not None and not 0 <= guidance <= 100:
        raise Invalid("`guidance_scale` must be from 0 to 100", "guidance_scale")
    steps = _whole(given, "num_inference_steps", 1, bounds.max_steps)
    return Shape(width, height, steps, None if guidance is None else float(guidance), _optional_text(given, "scheduler"))
