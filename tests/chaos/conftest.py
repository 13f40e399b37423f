"""What every chaos case needs: `record`, which holds a measured figure against its bar and writes it down.

One run's figures are in tests/chaos/out/results.json, in the form of the benchmark's (benchmarks/ratios.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.edge_fixtures import endpoint, engines, home, world, worlds

from benchmarks.ratios import Figure

__all__ = ["endpoint", "engines", "home", "world", "worlds"]
OUT = Path(__file__).parent / "out"


@pytest.fixture(scope="session")
def _results() -> Iterator[Callable[[Figure], None]]:
    """Writes figures down: line by line while the run goes on, and as one list at its end."""
    OUT.mkdir(exist_ok=True)
    figures: list[Figure] = []
    lines = OUT / "results.jsonl"
    lines.write_text("")

    def write(figure: Figure) -> None:
        figures.append(figure)
        with lines.open("a") as file:
            file.write(json.dumps(figure.row()) + "\n")

    yield write
    (OUT / "results.json").write_text(json.dumps([figure.row() for figure in figures], indent=1) + "\n")


@pytest.fixture(scope="session")
def platform(shared_platform: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A platform for all cases that break it and see it mend itself. The other tests have one of their own.

    Its echo engines write down what they make (tests/chaos/test_usage.py).
    """
    return shared_platform(echo_tally=tmp_path_factory.mktemp("tally"))


@pytest.fixture
def record(_results: Callable[[Figure], None]) -> Callable[..., None]:
    """`record(figure, value, bar)`: `value` has to be at most `bar` (with `at_most=False`: at least), else the test fails."""

    def write(
        figure: str,
        value: float,
        bar: float,
        *,
        at_most: bool = True,
        unit: str = "",
        low: float | None = None,
        high: float | None = None,
        note: str = "",
    ) -> None:
        value = round(value, 4)
        seen = Figure(figure, value, value if low is None else low, value if high is None else high, bar, at_most, unit, note)
        _results(seen)
        print(json.dumps(seen.row()))
        if seen.verdict == "fail":
            pytest.fail(f"{figure}: {value:g} {unit}, which has to be at {'most' if at_most else 'least'} {bar:g}. {note}")

    return write
