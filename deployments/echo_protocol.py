"""What the echo engine understands of OpenAI's requests and how its answers look: pure, no I/O."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import struct
import time
import zlib
from collections.abc import Mapping
from typing import Any

MAX_TOKENS = 100_000
MAX_ANSWERS = 16
DIMENSIONS = 64
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class Refused(Exception):
    """An answer other than 200, with OpenAI's error body."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": None}}
        super().__init__(message)


@dataclasses.dataclass(frozen=True)
class Completion:
    """A generation request, understood."""

    chat: bool
    model: str
    prompt_tokens: int
    tokens: tuple[str, ...]
    answers: int
    """How many times that is answered: `n`."""
    finish_reason: str
    stop: str | None
    """The stop string that ended it."""
    stream: bool
    usage: bool
    """A stream ends with a usage chunk."""
    delay_s: float
    crash_after: int | None
    """Tokens after which the server kills itself."""

    @property
    def usage_body(self) -> dict[str, int]:
        """OpenAI's `usage`."""
        made = len(self.tokens) * self.answers
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": made, "total_tokens": self.prompt_tokens + made}

    def base(self, number: int, fingerprint: str, *, chunk: bool = False) -> dict[str, Any]:
        """The fields that every answer and chunk begins with."""
        kind, prefix = ("chat.completion" + ".chunk" * chunk, "chatcmpl") if self.chat else ("text_completion", "cmpl")
        base = {"id": f"{prefix}-echo-{number}", "object": kind, "created": int(time.time()), "model": self.model}
        return {**base, "system_fingerprint": fingerprint or None}

    def pieces(self, token: str) -> list[dict[str, Any]]:
        """A stream's choices that carry one token of each answer."""
        return self._each({"delta": {"content": token}} if self.chat else {"text": token, "token_ids": [token_id(token)]})

    def opening(self) -> list[dict[str, Any]]:
        """The choices that come before the first token: chat tells the role first."""
        return self._each({"delta": {"role": "assistant", "content": ""}}) if self.chat else []

    def closing(self) -> list[dict[str, Any]]:
        """A stream's last choices."""
        return self._each({"delta": {}} if self.chat else {"text": ""}, self.finish_reason, self.stop)

    def whole(self) -> list[dict[str, Any]]:
        """The choices of an answer that is not streamed."""
        text = "".join(self.tokens)
        ids = [token_id(token) for token in self.tokens]
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text, "token_ids": ids}
        return self._each(content, self.finish_reason, self.stop)

    def _each(self, content: dict[str, Any], finish_reason: str | None = None, stop: str | None = None) -> list[dict[str, Any]]:
        return [
            {"index": index, **content, "logprobs": None, "finish_reason": finish_reason, "stop_reason": stop}
            for index in range(self.answers)
        ]


def parse(content_type: str, body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises Refused."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, f"send Content-Type: application/json, not {content_type or 'none'}")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, "the body is not valid JSON") from exc
    if not isinstance(request, dict):
        raise Refused(400, "the body must be a JSON object")
    return request


def chat(request: Mapping[str, Any], model: str, adapter: str | None = None) -> Completion:
    """Understands a body of /v1/chat/completions. Raises Refused."""
    prompt, words = messages(request)
    return _understand(request, model, len(prompt), _in_style(words, adapter), chat=True)


def completion(request: Mapping[str, Any], model: str, adapter: str | None = None) -> Completion:
    """Understands a body of /v1/completions. Raises Refused."""
    prompt = request.get("prompt")
    if not isinstance(prompt, str):
        raise Refused(400, "`prompt` must be a string", "prompt")
    words = prompt.split()
    return _understand(request, model, len(words), _in_style(words, adapter), chat=False)


def messages(request: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(all words, those of the last user message) of a chat. Raises Refused."""
    given = request.get("messages")
    if not isinstance(given, list) or not given:
        raise Refused(400, "`messages` must be a non-empty list", "messages")
    prompt: list[str] = []
    last: list[str] = []
    for number, message in enumerate(given):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Refused(400, f"`messages[{number}].role` must be one of {', '.join(ROLES)}", f"messages[{number}].role")
        words = _content(message.get("content"), number).split()
        prompt += words
        last = words if message["role"] == "user" else last
    return prompt, last


def embeddings(request: Mapping[str, Any]) -> tuple[list[Any], int]:
    """(vectors in the encoding asked for, prompt tokens) of a body of /v1/embeddings. Raises Refused."""
    texts = request.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "`input` must be a string or a list of strings", "input")
    dimensions = _number(request, "dimensions", DIMENSIONS, 4096)
    vectors = [_vector(text, dimensions) for text in texts]
    count = sum(len(text.split()) for text in texts)
    if request.get("encoding_format") == "base64":  # what the openai client asks for
        return [base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() for vector in vectors], count
    return vectors, count


def token_id(token: str) -> int:
    """A stable number for a token."""
    return zlib.crc32(token.strip().encode()) % 32_000


def _understand(request: Mapping[str, Any], model: str, prompt_tokens: int, words: list[str], *, chat: bool) -> Completion:
    answers = _number(request, "n", 1, MAX_ANSWERS)
    wanted = _number(request, "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens", len(words))
    tokens = tuple((" " if number else "") + words[number % len(words)] for number in range(wanted)) if words else ()
    tokens, stop = _until_stop(tokens, _stops(request))
    script = request.get("echo") or {}
    if not isinstance(script, dict):
        raise Refused(400, "`echo` must be an object", "echo")
    if "status" in script:
        raise Refused(int(script["status"]), "told to answer so")
    name = request.get("model") or model
    if not isinstance(name, str):
        raise Refused(400, "`model` must be a string", "model")
    options = request.get("stream_options") or {}
    return Completion(
        chat=chat,
        model=name,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        answers=answers,
        finish_reason="length" if stop is None and 0 < len(tokens) != len(words) else "stop",
        stop=stop,
        stream=bool(request.get("stream")),
        usage=bool(options.get("include_usage")),
        delay_s=float(script.get("delay_s", 0)),
        crash_after=script.get("crash_after"),
    )


def _in_style(words: list[str], adapter: str | None) -> list[str]:
    """What an adapter makes of an answer: one sees which it was."""
    return words if adapter is None else [f"<{adapter}>", *words]


def _content(content: Any, number: int) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return " ".join(str(part.get("text", "")) for part in content)
    raise Refused(400, f"`messages[{number}].content` must be text", f"messages[{number}].content")


def _number(request: Mapping[str, Any], name: str, default: int, highest: int = MAX_TOKENS) -> int:
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
        raise Refused(400, f"`{name}` must be a whole number from 1 to {highest}", name)
    return value


def _stops(request: Mapping[str, Any]) -> list[str]:
    stop = request.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(item, str) and item for item in stops):
        raise Refused(400, "`stop` must be a string or a list of strings", "stop")
    return stops


def _until_stop(tokens: tuple[str, ...], stops: list[str]) -> tuple[tuple[str, ...], str | None]:
    """The tokens before the one that completes a stop string, and that string."""
    text = ""
    for number, token in enumerate(tokens):
        text += token
        for stop in stops:
            if stop in text:
                return tokens[:number], stop
    return tokens, None


def _vector(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on the words only: the sum of one pseudo-random direction per word."""
    total = [0.0] * dimensions
    for word in text.split() or [""]:
        noise = hashlib.shake_128(word.encode()).digest(dimensions)
        total = [value + byte / 127.5 - 1 for value, byte in zip(total, noise, strict=True)]
    length = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / length for value in total]
