"""What vLLM says of memory when it loads a model: its own figures, which take the place of a plan's estimates next time."""

from __future__ import annotations

import re

GIB = 1024**3
LINES = (
    (re.compile(r"Model loading took (?P<weightsBytes>[\d.]+) GiB"), GIB),
    (re.compile(r"KV cache size: (?P<cacheTokens>[\d,]+) tokens"), 1),
    (re.compile(r"Maximum concurrency for (?P<maxModelLen>[\d,]+) tokens per request: (?P<concurrency>[\d.]+)x"), 1),
)
"""Lines of vLLM's log; the names are those of `cluster.records.Measurement.data`."""


class Measured:
    """Reads lines as they come; `found` is what they said."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def line(self, text: str) -> None:
        """One line of the server's output; of several workers the largest figure counts."""
        for expression, unit in LINES:
            match = expression.search(text)
            for name, value in match.groupdict().items() if match else ():
                number = float(value.replace(",", "")) * unit
                self.found[name] = max(number, self.found.get(name, 0.0))
