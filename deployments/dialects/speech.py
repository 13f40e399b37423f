"""Speech to text between Hugging Face's form (the sound itself, or base64 in `inputs`) and OpenAI's transcriptions: no I/O."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import uuid
from collections.abc import Mapping
from typing import Any

from deployments.dialects.generation import Invalid

TASKS = frozenset({"automatic-speech-recognition"})

NESTED = ("generation_parameters", "generate_kwargs")
"""Where clients put what transformers' `generate` takes; also taken without the nesting."""
RENAMED = {name: name for name in ("language", "temperature", "top_p", "top_k", "repetition_penalty", "seed")}
RENAMED |= {"max_new_tokens": "max_completion_tokens"}
ACCEPTED = frozenset({*RENAMED, "task", "do_sample", "return_timestamps"})


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the engine is asked: a form with the sound and these fields."""

    route: str
    fields: Mapping[str, str]
    sound: bytes = dataclasses.field(repr=False)
    timestamps: bool = False

    def form(self) -> tuple[bytes, bytes]:
        """The body, and its content type."""
        boundary = uuid.uuid4().hex.encode()
        parts = [b'name="%s"\r\n\r\n%s' % (name.encode(), value.encode()) for name, value in self.fields.items()]
        parts.append(b'name="file"; filename="sound"\r\nContent-Type: application/octet-stream\r\n\r\n' + self.sound)
        body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (boundary, part) for part in parts)
        return body + b"--%s--\r\n" % boundary, b"multipart/form-data; boundary=" + boundary

    def read(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's whole answer as Hugging Face's."""
        found: dict[str, Any] = {"text": answer["text"]}
        if self.timestamps:
            segments = answer.get("segments") or []
            found["chunks"] = [{"text": one["text"], "timestamp": [one["start"], one["end"]]} for one in segments]
        return found


def translate(body: bytes) -> Asked:
    """`body` is the sound itself, or JSON with `inputs` and `parameters`; no sound begins like an object of JSON. Raises Invalid."""
    if not body:
        raise Invalid("the body must be a sound")
    if body.lstrip()[:1] != b"{":
        return Asked("/v1/audio/transcriptions", {}, body)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Invalid("the body is neither a sound nor valid JSON") from exc
    given = _parameters(request.get("parameters"))
    stamps = given.get("return_timestamps", False)
    if not isinstance(stamps, bool):
        raise Invalid("`return_timestamps` must be true or false: times of words are not told here")
    task = given.get("task", "transcribe")
    if task not in ("transcribe", "translate"):
        raise Invalid("`task` must be transcribe or translate")
    fields = {RENAMED[name]: str(value) for name, value in given.items() if name in RENAMED}
    if given.get("do_sample") is False:
        fields["temperature"] = "0"
    if stamps:
        fields["response_format"] = "verbose_json"
    route = "/v1/audio/translations" if task == "translate" else "/v1/audio/transcriptions"
    return Asked(route, fields, _sound(request.get("inputs")), stamps)


def _parameters(parameters: Any) -> dict[str, Any]:
    """All of them on one level."""
    found: dict[str, Any] = {}
    for name, value in _object(parameters, "parameters").items():
        found |= _object(value, name) if name in NESTED else {name: value}
    unknown = sorted(set(found) - ACCEPTED)
    if unknown:
        raise Invalid(f"unknown parameter {unknown[0]!r}")
    return {name: value for name, value in found.items() if value is not None}


def _object(given: Any, name: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise Invalid(f"`{name}` must be an object")
    return given or {}


def _sound(inputs: Any) -> bytes:
    try:
        sound = base64.b64decode(inputs, validate=True) if isinstance(inputs, str) else b""
    except (binascii.Error, ValueError) as exc:
        raise Invalid("`inputs` is not valid base64") from exc
    if not sound:
        raise Invalid("`inputs` must be a sound in base64")
    return sound
