"""What is struck out of prompts before they are kept: kinds of data by their words, and patterns of the endpoint's owner.

Patterns are regular expressions whose work is bounded, since they run inside an engine's server: no `*`, no `+`, no references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from re import _constants, _parser  # type: ignore[attr-defined]  # the only way to look at a pattern without running it
from typing import Any

WORDS: Mapping[str, str] = {
    "secret": r"\b(?:sk|hf|ghp|xox[abp])[-_][A-Za-z0-9_-]{16,}",
    "email": r"[\w.+-]{1,64}@[\w-]{1,40}(?:\.[\w-]{1,40}){1,3}",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card": r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)",
    "phone": r"(?<![\d.])\+?\(?\d(?:[ ()./-]{0,2}\d){6,14}(?!\d)",
    "ip": r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])",
    "number": r"\d(?:[ ,.'-]?\d){3,63}",
}
"""In the order in which they are applied."""
OWN_KEYS = r"\bmoor_[a-z]_[A-Za-z0-9_-]{16,}"
"""Struck out always."""
MOST_PATTERNS = 16
MOST_WAYS = 1024
"""In how many ways a pattern may try to match at one place."""
MOST_WIDTH = 256
"""Characters that a pattern may match."""


class Redaction:
    """Strikes out what `rules` (words and patterns) say; ready to be used often."""

    def __init__(self, rules: Iterable[str]) -> None:
        asked = tuple(rules)
        words = [(re.compile(WORDS[word]), f"[{word}]") for word in WORDS if word in asked]
        own = [(re.compile(rule), "[redacted]") for rule in asked if rule not in WORDS]
        self._rules = [(re.compile(OWN_KEYS), "[secret]"), *words, *own]

    def text(self, text: str) -> str:
        """`text` without what is to be struck out."""
        for pattern, name in self._rules:
            text = pattern.sub(name, text)
        return text

    def beginning(self, text: str, length: int) -> str:
        """At most `length` characters of `text` without what is to be struck out, however long it is.

        Looked at is a little more, and the end of that is dropped: what a pattern would match across it is not kept in half.
        """
        if len(text) <= length + MOST_WIDTH:
            return self.text(text)[:length]
        return self.text(text[: length + MOST_WIDTH])[:-MOST_WIDTH][:length]

    def value(self, value: Any) -> Any:
        """The same of every text and number in a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            shown = str(value)
            redacted = self.text(shown)
            return value if redacted == shown else redacted
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(item) for name, item in value.items()}
        return [self.value(item) for item in value]


def check(rule: str) -> str:
    """The rule, if it is a word or a pattern that can be used. Raises ValueError with a sentence."""
    if rule in WORDS:
        return rule
    if len(rule) > MOST_WIDTH:
        raise ValueError(f"a pattern has at most {MOST_WIDTH} characters")
    try:
        parsed = _parser.parse(rule)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError(f"{rule!r} is neither a pattern ({exc}) nor one of {', '.join(WORDS)}") from None
    least, most = parsed.getwidth()
    if least == 0:
        raise ValueError(f"{rule!r} matches nothing, which is everywhere: let it match at least one character")
    if most > MOST_WIDTH or _ways(parsed) > MOST_WAYS:
        raise ValueError(f"{rule!r} may take too long: bound its repetitions, as in [a-z]{{1,40}} instead of [a-z]+, and nest none")
    return rule


def _ways(tree: Any) -> int:
    """How many ways there are, at most, to match the tree at one place; more than MOST_WAYS when it cannot be told."""
    ways = 1
    for operator, argument in tree:
        if operator in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            least, most, body = argument
            inner = _ways(body)
            if most > MOST_WIDTH or (inner > 1 and most > MOST_WAYS.bit_length()):
                return MOST_WAYS + 1
            ways *= (most - least + 1) * inner**most
        elif operator is _constants.BRANCH:
            ways *= sum(_ways(branch) for branch in argument[1])
        elif operator is _constants.SUBPATTERN:
            ways *= _ways(argument[-1])
        elif operator in (_constants.ASSERT, _constants.ASSERT_NOT):
            ways *= _ways(argument[1])
        elif operator is _constants.ATOMIC_GROUP:
            ways *= _ways(argument)
        elif operator in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            return MOST_WAYS + 1
        if ways > MOST_WAYS:
            return MOST_WAYS + 1
    return ways
