"""What the engine in this process is doing, as last told by the engine's own hooks; read by the guard's stats route.

One object per server process (`CURRENT`): the engine loads our hooks and the guard each by import path, so a module is the
only place where they can meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from deployments.nap import Nap


@dataclasses.dataclass
class EngineStats:
    """Counts of this moment. `connected` says whether an engine reports here at all; without one the guard's count stands in."""

    connected: bool = False
    unfinished: Callable[[], int] = lambda: 0
    """Requests the engine has and has not finished: running and waiting."""
    waiting: Callable[[], int] = lambda: 0
    """Those of them that the engine has not begun."""
    stepped_at: float = 0.0
    """Last step of the engine, in seconds of the machine's monotonic clock (the same in every process of the machine)."""
    tasks: tuple[str, ...] = ()
    """What the engine can do: generate, embed, score, classify, ..."""
    max_concurrency: int = 0
    """Requests that the engine runs at once; 0 = unknown."""
    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Names of a classifier's classes by number."""
    routes: tuple[str, ...] = ()
    """The engine's own routes that are worth naming to a client who asked for another: `POST /v1/completions`, ..."""
    nap: Nap | None = None
    """Its sleep mode; None where it has none."""


CURRENT = EngineStats()
