"""Durations counted in steps that grow by an eighth: twenty to a power of ten, so that a percentile is right within 6 %.

The steps are the same everywhere: gateways count in them, the manager adds up, and the export shows every fifth of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

PER_DECADE = 20
SHORTEST_S = 0.001
LAST = 6 * PER_DECADE
"""Step of the longest duration that has a bound, 1000 s; what takes longer is in the step after it."""
EXPORTED = tuple(range(0, LAST + 1, PER_DECADE // 4))
"""Steps whose bounds the export shows: four to a power of ten."""


def step(seconds: float) -> int:
    """The step that a duration falls into: the first whose bound it does not exceed."""
    if seconds <= SHORTEST_S:
        return 0
    # A duration that is a bound belongs to it, whatever the logarithm's last digit says.
    return min(LAST + 1, math.ceil(PER_DECADE * math.log10(seconds / SHORTEST_S) - 1e-9))


def bound(number: int) -> float:
    """The longest duration of a step, in seconds; infinite for the last one."""
    return SHORTEST_S * 10 ** (number / PER_DECADE) if number <= LAST else math.inf


@dataclasses.dataclass
class Histogram:
    """How many durations fell into each step, and their sum in seconds."""

    steps: dict[int, int] = dataclasses.field(default_factory=dict)
    total: float = 0.0

    @property
    def count(self) -> int:
        """All durations."""
        return sum(self.steps.values())

    def add(self, seconds: float) -> None:
        """Counts one duration. One that is negative (a clock was set) counts as none at all, of length 0."""
        number = step(seconds)
        self.steps[number] = self.steps.get(number, 0) + 1
        self.total += max(0.0, seconds)

    def merge(self, steps: Mapping[int, int], total: float) -> None:
        """Counts what was counted elsewhere."""
        for number, count in steps.items():
            self.steps[number] = self.steps.get(number, 0) + count
        self.total += total

    def percentile(self, percent: float) -> float | None:
        """The duration that so many percent do not exceed, in seconds; None when nothing was counted.

        Within a step durations are taken to be spread evenly. Those beyond the last bound count as that bound.
        """
        wanted, before = self.count * percent / 100, 0
        for number in sorted(self.steps):
            count = self.steps[number]
            if before + count >= wanted:
                low = 0.0 if number == 0 else bound(number - 1)
                return low if number > LAST else low + (bound(number) - low) * (wanted - before) / count
            before += count
        return None

    def exported(self) -> list[tuple[float, int]]:
        """(bound, durations up to it) for the bounds that the export shows, the infinite one last."""
        rows, so_far, numbers = [], 0, sorted(self.steps)
        for shown in EXPORTED:
            while numbers and numbers[0] <= shown:
                so_far += self.steps[numbers.pop(0)]
            rows.append((bound(shown), so_far))
        return [*rows, (math.inf, self.count)]
