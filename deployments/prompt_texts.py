"""What of a request and its answer is the client's text, for keeping: redacted first, then cut.

Works on whole bodies, away from the event loop. What has an unknown shape is not kept: it could not be redacted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cluster import messages, redaction

PROMPT_FIELDS = (
    *("messages", "system", "instructions", "prompt", "suffix", "negative_prompt", "input", "inputs"),
    *("query", "queries", "documents", "items", "text", "text_1", "text_2"),
)
"""Fields of a request's body, of every dialect, that have a client's texts in them."""
DATA_LENGTH = 512
"""Longer texts that begin with data: are media."""


def prompt(body: bytes, rules: redaction.Redaction, limit: int) -> tuple[str, bool]:
    """(the texts of a request as JSON, whether they were cut); '' where the body has none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "", False
    if not isinstance(found, dict):
        return "", False
    budget = _Budget(limit)
    kept = {name: budget.take(found[name], rules) for name in PROMPT_FIELDS if name in found}
    text = json.dumps(kept, ensure_ascii=False) if kept else ""
    return text[:limit], budget.exceeded or len(text) > limit


def answer(body: bytes, rules: redaction.Redaction, limit: int) -> tuple[str | None, bool]:
    """(the text of an answer, streamed or not, whether it was cut); None where it has no text of a known shape.

    A stream's parts are joined before anything is struck out: a name may be spread over several.
    """
    said: dict[int, list[str]] = {}
    for event in _objects(body):
        for index, part in _parts(event):
            said.setdefault(index, []).append(part)
    if not said:
        return None, False
    text = "\n".join("".join(parts) for _, parts in sorted(said.items()))
    return rules.beginning(text, limit), len(text) > limit


class _Budget:
    """So many characters of one body's texts: redacting costs time, and what is over the limit is not kept anyway."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.exceeded = False

    def take(self, value: Any, rules: redaction.Redaction) -> Any:
        if isinstance(value, str):
            return self._text(value, rules)
        if isinstance(value, dict):
            return {rules.beginning(str(name), redaction.MOST_WIDTH): self.take(item, rules) for name, item in value.items()}
        if isinstance(value, list):
            kept = []
            for item in value:
                if self._left <= 0:
                    self.exceeded = True
                    break
                kept.append(self.take(item, rules))
            return kept
        self._left -= 8
        return rules.value(value)

    def _text(self, text: str, rules: redaction.Redaction) -> str:
        if text.startswith("data:") and len(text) > DATA_LENGTH:
            return f"[{len(text)} characters of data]"
        left = max(0, self._left)
        self.exceeded = self.exceeded or len(text) > left
        self._left -= len(text)
        return rules.beginning(text, left)


def _objects(body: bytes) -> Iterator[Any]:
    """The JSON of a plain answer, or of each event of a stream."""
    text = body.decode(errors="replace")
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")] or [text]
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _parts(event: Any) -> Iterator[tuple[int, str]]:
    """(choice, text) in an answer or an event of OpenAI's, Anthropic's and Hugging Face's dialects."""
    for one in event if isinstance(event, list) else [event]:
        if not isinstance(one, dict):
            continue
        for choice in _list(one.get("choices")):
            said = choice.get("message") or choice.get("delta") or choice
            parts = (said.get("reasoning_content"), said.get("reasoning"), said.get("content"), choice.get("text"))
            yield from ((_index(choice), part) for part in parts if isinstance(part, str))
        delta = one.get("delta")
        if one.get("type") == "response.output_text.delta" and isinstance(delta, str):
            yield 0, delta
        elif isinstance(delta, dict) and isinstance(delta.get("text"), str):
            yield 0, delta["text"]
        whole = _list(one.get("content")) + [part for item in _list(one.get("output")) for part in _list(item.get("content"))]
        yield from ((0, part["text"]) for part in whole if isinstance(part.get("text"), str))
        token = one.get("token")
        if isinstance(token, dict) and isinstance(token.get("text"), str):
            yield 0, token["text"]
        elif isinstance(one.get("generated_text"), str):
            yield 0, one["generated_text"]


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def kept(id_: str, at: float, route: str, bodies: tuple[bytes, bytes | None], policy: messages.PromptPolicy) -> messages.Prompt | None:
    """What is kept of one request under the policy; None when it has no text."""
    rules = redaction.Redaction(policy.redact)
    asked, cut = prompt(bodies[0], rules, policy.max_bytes)
    said, more = answer(bodies[1], rules, policy.max_bytes) if bodies[1] is not None else (None, False)
    return messages.Prompt(id_, at, route, asked, said, cut or more) if asked or said else None
