"""Generation between SambaStudio's generic form (prompts, tuning params) and OpenAI's: pure translation, no I/O.

Version 1: `{"instances": [text]}` (a stream: `{"instance": text}`) and `{"name": {"type", "value"}}` as params.
Version 2: `{"items": [{"id", "value"}]}` and plain params. Source: SambaStudio's API reference, and what LangChain's client reads.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

DEFAULT_NEW_TOKENS = 100
"""Generated when `max_tokens_to_generate` is absent."""

SAME_NAME = ("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed")
OURS = ("max_tokens_to_generate", "do_sample", "process_prompt", "select_expert", "stop_sequences", "top_logprobs")
ACCEPTED = frozenset({*SAME_NAME, *OURS})
TYPES = ("int", "float", "bool", "str", "list")


class Invalid(Exception):
    """The request cannot be translated; the message says why."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """One prompt: what the engine is asked (`route`, `body`), and what the answer repeats of the question."""

    id: str
    prompt: str
    route: str
    body: Mapping[str, Any]

    @property
    def chat(self) -> bool:
        """Whether the model's chat template is applied (`process_prompt`)."""
        return self.route == "/v1/chat/completions"

    def result(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The value of one prompt, from the engine's whole answer."""
        choice = answer["choices"][0]
        text = choice["message"].get("content") or "" if self.chat else choice["text"]
        return self.value(text, choice, answer.get("usage") or {}) | {"logprobs": choice.get("logprobs")}

    def value(self, text: str, choice: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        """What whole answers and last events have in common."""
        return {
            "completion": text,
            "prompt": self.prompt,
            "stop_reason": stop_reason(choice),
            "prompt_tokens_count": usage.get("prompt_tokens", 0),
            "completion_tokens_count": usage.get("completion_tokens", 0),
            "total_tokens_count": usage.get("total_tokens", 0),
        }


Value = tuple[str, Mapping[str, Any]]
"""An item's id and what was made for it."""


class Form(Protocol):
    """A version of the protocol."""

    def read(self, body: bytes, *, stream: bool) -> list[Asked]:
        """The prompts of a request, one or more. Raises Invalid."""
        ...

    def answer(self, values: Sequence[Value]) -> dict[str, Any]:
        """The whole answer."""
        ...

    def event(self, value: Value) -> dict[str, Any]:
        """One line of a stream."""
        ...


class First:
    """Version 1."""

    def read(self, body: bytes, *, stream: bool) -> list[Asked]:
        """See Form."""
        request = _object(body)
        name = "instance" if stream else "instances"
        given = request.get(name)
        prompts = [given] if stream else given
        if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
            raise Invalid(f"`{name}` must be a {'non-empty string' if stream else 'list of non-empty strings'}")
        params = {name: _typed(name, value) for name, value in _params(request).items()}
        return [_asked(str(index), prompt, params, stream) for index, prompt in enumerate(prompts)]

    def answer(self, values: Sequence[Value]) -> dict[str, Any]:
        """See Form."""
        status = {"complete": True, "exitCode": 0, "elapsedTime": 0, "message": "", "progress": 1, "progressMessage": "", "reason": ""}
        return {"status": status, "predictions": [value for _, value in values]}

    def event(self, value: Value) -> dict[str, Any]:
        """See Form."""
        return {"result": {"responses": [value[1]]}}


class Second:
    """Version 2."""

    def read(self, body: bytes, *, stream: bool) -> list[Asked]:
        """See Form."""
        request = _object(body)
        items = request.get("items")
        if not isinstance(items, list) or not items or not all(_is_item(item) for item in items):
            raise Invalid('`items` must be a list of objects: {"id": "item0", "value": "a prompt"}')
        params = _params(request)
        return [_asked(item.get("id", str(index)), item["value"], params, stream) for index, item in enumerate(items)]

    def answer(self, values: Sequence[Value]) -> dict[str, Any]:
        """See Form."""
        return {"items": [{"id": identity, "value": value, "error": None} for identity, value in values], "status_code": 200}

    def event(self, value: Value) -> dict[str, Any]:
        """See Form."""
        return {"result": {"items": [{"id": value[0], "value": value[1]}]}}


V1, V2 = First(), Second()


class Stream:
    """Turns the engine's chunks into values. The last one carries the whole text and the counts of tokens, which come one chunk after
    the last text: that value is held back until then. A stream that breaks never gets one with `is_last_response`."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._text: list[str] = []
        self._last: Mapping[str, Any] | None = None

    def feed(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The values that this chunk is good for."""
        if chunk.get("choices"):
            return self._choice(chunk["choices"][0])
        if chunk.get("usage") and self._last is not None:
            value = self.asked.value("".join(self._text), self._last, chunk["usage"])
            return [{"stream_token": self._piece(self._last), "is_last_response": True, **value}]
        return []

    def _choice(self, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
        text = self._piece(choice)
        self._text.append(text)
        if choice.get("finish_reason"):
            self._last = choice
            return []
        return [{"stream_token": text, "is_last_response": False, "completion": "", "stop_reason": ""}] if text else []

    def _piece(self, choice: Mapping[str, Any]) -> str:
        return (choice["delta"].get("content") if self.asked.chat else choice.get("text")) or ""


def stop_reason(choice: Mapping[str, Any]) -> str:
    """OpenAI's word in SambaStudio's: max_len_reached, stop_sequence_hit or end_of_text."""
    if choice.get("finish_reason") == "length":
        return "max_len_reached"
    return "stop_sequence_hit" if choice.get("stop_reason") is not None else "end_of_text"


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Invalid("the body is not valid JSON") from exc
    if not isinstance(parsed, dict):
        raise Invalid("the body must be a JSON object")
    return parsed


def _params(request: Mapping[str, Any]) -> dict[str, Any]:
    params = request.get("params")
    if params is not None and not isinstance(params, dict):
        raise Invalid("`params` must be an object")
    unknown = sorted(set(params or {}) - ACCEPTED)
    if unknown:
        raise Invalid(f"unknown parameter {unknown[0]!r}: there are {', '.join(sorted(ACCEPTED))}")
    return {name: value for name, value in (params or {}).items() if value is not None}


def _is_item(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("value"), str) and bool(item["value"]) and isinstance(item.get("id", ""), str)


def _typed(name: str, given: Any) -> Any:
    """A value of version 1, `{"type": "int", "value": "5"}`, as what it says it is."""
    kind, value = (given.get("type"), given.get("value")) if isinstance(given, dict) else (None, None)
    if kind not in TYPES or not isinstance(value, str | int | float | bool | list):
        raise Invalid(f'`{name}` must be {{"type": one of {", ".join(TYPES)}, "value": text}}')
    text = str(value).strip()
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError as exc:
        raise Invalid(f"`{name}` is no {kind}: {text[:40]!r}") from exc
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise Invalid(f"`{name}` must be true or false, not {text[:40]!r}")
        return text.lower() == "true"
    return value


def _asked(identity: str, prompt: str, params: Mapping[str, Any], stream: bool) -> Asked:
    body: dict[str, Any] = {name: params[name] for name in SAME_NAME if name in params}
    body["max_tokens"] = params.get("max_tokens_to_generate", DEFAULT_NEW_TOKENS)
    if params.get("do_sample") is False or not {"do_sample", "temperature"} & set(params):
        body["temperature"] = 0.0
    if stop := _stop_sequences(params.get("stop_sequences")):
        body["stop"] = stop
    if "select_expert" in params:
        body["model"] = params["select_expert"]
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if not params.get("process_prompt"):
        logprobs = {"logprobs": params["top_logprobs"]} if params.get("top_logprobs") else {}
        return Asked(identity, prompt, "/v1/completions", {**body, **logprobs, "prompt": prompt})
    logprobs = {"logprobs": True, "top_logprobs": params["top_logprobs"]} if params.get("top_logprobs") else {}
    return Asked(identity, prompt, "/v1/chat/completions", {**body, **logprobs, "messages": _messages(prompt)})


def _stop_sequences(given: Any) -> list[str]:
    """A list, or text: `"a","b"` as the reference writes it, a Python list's text as LangChain sends it, or one bare sequence."""
    if isinstance(given, list):
        return [str(item) for item in given if item != ""]
    if not isinstance(given, str):
        return []
    quoted = [double or single for double, single in re.findall(r'"([^"]*)"|\'([^\']*)\'', given)]
    return [text for text in quoted or [given] if text and not re.fullmatch(r"[\[\]\"',\s]*", text)]


def _messages(prompt: str) -> list[dict[str, Any]]:
    """With `process_prompt` a prompt is the JSON of a conversation; any other text is what a user says."""
    try:
        conversation = json.loads(prompt)
    except (ValueError, RecursionError):
        conversation = None
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if messages is None:
        return [{"role": "user", "content": prompt}]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Invalid("`messages` of a conversation must be a list of objects")
    return [{name: value for name, value in message.items() if name != "message_id"} for message in messages]
