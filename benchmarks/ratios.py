"""Ratios of interleaved rounds with their spread, and what they say about a bar."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

Verdict = Literal["pass", "fail", "undecided", "no bar"]
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Interval:
    """The median of some rounds, and the 95 % bootstrap interval of that median."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the results. `at_most` tells which side of `bar` is good; a bar of None is only reported."""

    figure: str
    value: float
    low: float
    high: float
    bar: float | None
    at_most: bool = True
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Pass only if the whole interval is on the good side, fail only if none of it is."""
        if self.bar is None:
            return "no bar"
        good = [(value <= self.bar) == self.at_most or value == self.bar for value in (self.low, self.high)]
        return "pass" if all(good) else "undecided" if any(good) else "fail"

    def row(self) -> dict[str, Any]:
        """For results.json."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def interval(values: Sequence[float], of: Callable[[Sequence[float]], float] = statistics.median, seed: int = 1) -> Interval:
    """By resampling the rounds."""
    source = random.Random(seed)  # noqa: S311 - statistics
    resampled = sorted(of([source.choice(values) for _ in values]) for _ in range(RESAMPLES))
    return Interval(of(values), resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES)])


def ratio(
    figure: str, ours: Sequence[float], theirs: Sequence[float], bar: float | None, *, at_most: bool = True, note: str = ""
) -> Figure:
    """Round by round `ours / theirs`, which must have been measured side by side."""
    found = interval([mine / other for mine, other in zip(ours, theirs, strict=True)])
    return Figure(figure, found.value, found.low, found.high, bar, at_most, "x", note)


def measured(figure: str, values: Sequence[float], bar: float | None, unit: str, *, at_most: bool = True, note: str = "") -> Figure:
    """A quantity of its own, by its median."""
    found = interval(values)
    return Figure(figure, found.value, found.low, found.high, bar, at_most, unit, note)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
