"""Tokens that a user's program tells of itself: the `usage` object of a small JSON answer, OpenAI's way. Believed as far as it is sane.

Streams and large answers pass unread: their tokens count as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from deployments import usage

LARGEST = 32_768
"""Bytes of an answer that is read, which takes a quarter of a millisecond at most."""
MOST_TOKENS = 10_000_000
FIELDS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


class Told:
    """Keeps a copy of an answer that may tell."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """`headers` of the answer, their names in lower case."""
        said = dict(headers)
        size = said.get(b"content-length", b"")
        kind = said.get(b"content-type", b"").partition(b";")[0].strip()
        small = size.isdigit() and int(size) <= LARGEST
        self._parts: list[bytes] | None = [] if small and kind == b"application/json" and b"content-encoding" not in said else None

    def add(self, chunk: bytes) -> None:
        """The next part of the answer."""
        if self._parts is not None:
            self._parts.append(chunk)

    def count(self) -> None:
        """The answer is whole: what it tells goes to the request's account."""
        account = usage.ACCOUNT.get()
        if account is None or not self._parts:
            return
        account.prompt_tokens, account.completion_tokens = tokens(b"".join(self._parts))


def tokens(body: bytes) -> tuple[int, int]:
    """(prompt, completion) tokens that an answer tells; 0 for what it does not, or what cannot be."""
    if b'"usage"' not in body:
        return 0, 0
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return 0, 0
    told = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(told, dict):
        return 0, 0
    prompt, completion = (next((told[name] for name in names if name in told), 0) for names in FIELDS)
    return _sane(prompt), _sane(completion)


def _sane(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0
