"""Text generation between Hugging Face's form (`inputs`, `parameters`) and OpenAI's completions: pure translation, no I/O.

Source of the form: text-generation-inference, as huggingface_hub's InferenceClient speaks it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

DEFAULT_NEW_TOKENS = 100
"""What text-generation-inference generates when `max_new_tokens` is absent."""

SAME_NAME = ("repetition_penalty", "frequency_penalty", "seed", "top_k", "top_p")
UNSUPPORTED = ("watermark", "typical_p", "top_n_tokens", "decoder_input_details")
ACCEPTED = frozenset(
    {*SAME_NAME, *UNSUPPORTED, "max_new_tokens", "temperature", "do_sample", "return_full_text", "stop", "stop_sequences", "truncate"}
    | {"best_of", "details", "grammar", "adapter_id", "decoder_input_details", "top_n_tokens"}
)


class Invalid(Exception):
    """The request cannot be translated; the message says why."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the client asked for besides what the engine is told."""

    prompts: tuple[str, ...]
    full_text: bool
    details: bool
    seed: int | None


def to_completions(inputs: Any, parameters: Any, *, stream: bool) -> tuple[dict[str, Any], Wanted]:
    """The body for /v1/completions, and what to make of its answer. Raises Invalid."""
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, dict):
        raise Invalid("`parameters` must be an object")
    prompts = _prompts(inputs, stream)
    _check(parameters)
    given = {name: value for name, value in parameters.items() if value is not None}
    body: dict[str, Any] = {
        "prompt": prompts[0] if isinstance(inputs, str) else list(prompts),
        "max_tokens": given.get("max_new_tokens", DEFAULT_NEW_TOKENS),
        "temperature": _temperature(given),
        "return_token_ids": True,
        "stream": stream,
    }
    body |= {name: given[name] for name in SAME_NAME if name in given}
    body |= _renamed(given)
    if stream:
        body["stream_options"] = {"include_usage": True}
    if given.get("details"):
        body["logprobs"] = 0
    return body, Wanted(prompts, bool(given.get("return_full_text")), bool(given.get("details")), given.get("seed"))


def _prompts(inputs: Any, stream: bool) -> tuple[str, ...]:
    if isinstance(inputs, str) and inputs:
        return (inputs,)
    if isinstance(inputs, list) and inputs and all(isinstance(item, str) and item for item in inputs) and not stream:
        return tuple(inputs)
    raise Invalid("`inputs` must be a non-empty string" + ("" if stream else " or a list of such strings"))


def _check(parameters: dict[str, Any]) -> None:
    unknown = sorted(set(parameters) - ACCEPTED)
    if unknown:
        raise Invalid(f"unknown parameter {unknown[0]!r}")
    asked = next((name for name in UNSUPPORTED if parameters.get(name)), None)
    if asked is not None:
        raise Invalid(f"the parameter {asked!r} is not supported here")
    if parameters.get("best_of") not in (None, 0, 1):
        raise Invalid("`best_of` over 1 is not supported here")


def _temperature(given: dict[str, Any]) -> float:
    """Greedy unless something asks for sampling, as in text-generation-inference."""
    if "temperature" in given:
        temperature: float = given["temperature"]
        return temperature
    return 1.0 if given.get("do_sample") or "top_k" in given or "top_p" in given else 0.0


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    stop = given.get("stop") or given.get("stop_sequences")
    if stop:
        renamed["stop"] = stop
    if "truncate" in given:
        renamed["truncate_prompt_tokens"] = given["truncate"]
    if "adapter_id" in given:
        renamed["model"] = given["adapter_id"]
    if "grammar" in given:
        renamed["structured_outputs"] = _grammar(given["grammar"])
    return renamed


def _grammar(grammar: Any) -> dict[str, Any]:
    kind, value = (grammar.get("type"), grammar.get("value")) if isinstance(grammar, dict) else (None, None)
    if kind == "json" and value is not None:
        return {"json": value}
    if kind == "json_schema" and isinstance(value, dict) and "schema" in value:
        return {"json": value["schema"]}
    if kind == "regex" and isinstance(value, str):
        return {"regex": value}
    raise Invalid('`grammar` must be {"type": "json", "value": <schema>} or {"type": "regex", "value": <expression>}')


def finish_reason(choice: dict[str, Any]) -> str:
    """OpenAI's word in Hugging Face's: length, stop_sequence or eos_token."""
    if choice.get("finish_reason") == "length":
        return "length"
    return "stop_sequence" if choice.get("stop_reason") is not None else "eos_token"


def from_completions(answer: dict[str, Any], wanted: Wanted) -> list[dict[str, Any]]:
    """One `{"generated_text", "details"?}` per prompt."""
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    return [_generated(choice, prompt, wanted) for choice, prompt in zip(choices, wanted.prompts, strict=True)]


def _generated(choice: dict[str, Any], prompt: str, wanted: Wanted) -> dict[str, Any]:
    text = choice["text"]
    result: dict[str, Any] = {"generated_text": prompt + text if wanted.full_text else text}
    if wanted.details:
        tokens = _tokens(choice)
        reason = finish_reason(choice)
        result["details"] = {"finish_reason": reason, "generated_tokens": len(tokens), "seed": wanted.seed, "prefill": [], "tokens": tokens}
    return result


def _tokens(choice: dict[str, Any]) -> list[dict[str, Any]]:
    logprobs = choice.get("logprobs") or {}
    texts, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    ids = choice.get("token_ids") or [0] * len(texts)
    return [
        {"id": number, "text": text, "logprob": value, "special": False} for number, text, value in zip(ids, texts, values, strict=False)
    ]


class Stream:
    """Turns the chunks of a completions stream into Hugging Face's events.

    The event of the last token carries the whole text, and its details need the usage, which comes one chunk later:
    so that one event is held back until then. A stream that breaks off never gets a `generated_text`.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._text: list[str] = []
        self._index = 0
        self._tokens = 0
        self._last: dict[str, Any] | None = None
        self._finish = ""

    def feed(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """The events that this chunk is good for, most often one."""
        if "error" in chunk:
            error = chunk["error"]
            message = error.get("message", "") if isinstance(error, dict) else str(error)
            return [{"error": message or "the engine failed", "error_type": "generation"}]
        if chunk.get("choices"):
            return self._token(chunk["choices"][0])
        if chunk.get("usage") and self._last is not None:
            return [self._final(chunk["usage"])]
        return []

    def _token(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        ids = choice.get("token_ids") or []
        text = choice.get("text") or ""
        if not text and not ids and not choice.get("finish_reason"):
            return []
        self._text.append(text)
        self._index += 1
        self._tokens += len(ids) or 1
        values = (choice.get("logprobs") or {}).get("token_logprobs") or [None]
        token = {"id": ids[-1] if ids else 0, "text": text, "logprob": values[-1], "special": False}
        event = {"index": self._index, "token": token, "generated_text": None, "details": None}
        if not choice.get("finish_reason"):
            return [event]
        self._last, self._finish = event, finish_reason(choice)
        return []

    def _final(self, usage: dict[str, Any]) -> dict[str, Any]:
        assert self._last is not None
        text = "".join(self._text)
        details = {
            "finish_reason": self._finish,
            "generated_tokens": usage.get("completion_tokens", self._tokens),
            "input_length": usage.get("prompt_tokens", 0),
            "seed": self._wanted.seed,
        }
        generated = self._wanted.prompts[0] + text if self._wanted.full_text else text
        return {**self._last, "generated_text": generated, "details": details}
