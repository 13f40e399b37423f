"""`python -m benchmarks [--real] [--only edge control real]`: measures, prints, and writes benchmarks/out."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import control, edge, peers, real, report
from benchmarks.ratios import Figure
from benchmarks.report import Point

OUT = Path(__file__).parent / "out"


def main() -> int:
    """The exit code is 1 when a figure fails its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--real", action="store_true", help="also real vLLM: bare against behind Moorage, and cold starts (20 minutes more)"
    )
    parser.add_argument("--only", nargs="+", choices=("edge", "control", "real"), help="some parts alone")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds of each comparison")
    asked = parser.parse_args()
    parts = asked.only or ["edge", "control", *(["real"] if asked.real else [])]
    figures: list[Figure] = []
    points: list[Point] = []
    for part in parts:
        began = time.monotonic()
        if part == "edge":
            found, points = edge.measure(asked.rounds, other_gateways())
            steps: Iterable[list[Figure]] = [found]
        else:
            steps = [control.measure()] if part == "control" else real.measure(asked.rounds)
        for found in steps:
            figures += found
            tell(report.table(found) + "\n")
            report.write(OUT, figures, points)  # what is known is kept, whatever becomes of the rest
        tell(f"({part} took {time.monotonic() - began:.0f} s)\n")
    tell(f"Written to {OUT}\n")
    return int(any(figure.verdict == "fail" for figure in figures))


def other_gateways() -> Path | None:
    """The peers' Python; None, and why, when they cannot be installed."""
    try:
        return peers.environment(OUT / "peers")
    except (OSError, subprocess.CalledProcessError) as exc:
        tell(f"Without other gateways: {exc}\n")
        return None


def tell(text: str) -> None:
    """For the person who waits."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
