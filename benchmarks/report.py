"""What a run leaves: results.json, a table in Markdown, and a picture of cost and latency by arm."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.ratios import Figure

mpl.use("Agg")
from matplotlib import pyplot as plt

UNITS = {"x": "{:.3g}x", "": "{:g}", "ms": "{:.3g} ms", "s": "{:.3g} s", "KiB": "{:.3g} KiB", "%": "{:.3g} %"}


@dataclasses.dataclass(frozen=True)
class Point:
    """One arm in the picture."""

    name: str
    cpu_us: float
    """CPU microseconds per request."""
    latency_ms: float
    """Median latency of a request under that load."""
    rate: float
    """Requests a second."""


def shown(value: float, unit: str) -> str:
    """A value for people."""
    return UNITS[unit].format(value)


def table(figures: Sequence[Figure]) -> str:
    """Markdown."""
    lines = ["| Figure | Measured | 95 % interval | Bar | Verdict |", "|---|---|---|---|---|"]
    for row in figures:
        bar = "" if row.bar is None else f"{'≤' if row.at_most else '≥'} {shown(row.bar, row.unit)}"
        spread = f"{shown(row.low, row.unit)} to {shown(row.high, row.unit)}"
        name = row.figure + (f" ({row.note})" if row.note else "")
        lines.append(f"| {name} | {shown(row.value, row.unit)} | {spread} | {bar} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def arms_table(points: Sequence[Point]) -> str:
    """Markdown: the arms side by side."""
    lines = ["| Arm | CPU per request | Median latency | Requests/s |", "|---|---|---|---|"]
    lines += [f"| {point.name} | {point.cpu_us:.0f} µs | {point.latency_ms:.2f} ms | {point.rate:.0f} |" for point in points]
    return "\n".join(lines) + "\n"


def picture(points: Sequence[Point], file: Path) -> None:
    """Two bar charts with a logarithmic axis."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.6 + 0.5 * len(points)), sharey=True)
    names = [point.name for point in points]
    for axis, values, title in (
        (axes[0], [point.cpu_us for point in points], "CPU per request, µs"),
        (axes[1], [point.latency_ms for point in points], "median latency, ms"),
    ):
        bars = axis.barh(names, values, color=["#2b7a78" if name.startswith("Moorage") else "#b0b7bd" for name in names])
        axis.set_xscale("log")
        axis.set_title(title, fontsize=10)
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.25)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)


def write(folder: Path, figures: Sequence[Figure], points: Sequence[Point]) -> str:
    """Writes everything; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (
        f"Measured on {os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()}), load {os.getloadavg()[0]:.1f}.\n\n"
    )
    text += table(figures)
    if points:
        text += "\n" + arms_table(points)
        picture(points, folder / "arms.png")
    (folder / "results.md").write_text(text)
    (folder / "results.json").write_text(json.dumps([row.row() for row in figures], indent=1) + "\n")
    return text
