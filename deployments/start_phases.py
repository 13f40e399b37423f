"""Where the time of a start goes, from what a server writes while it comes up.

Engines tell no other way: vLLM logs each step as it begins or ends. A line that nobody knows changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

Milestone = tuple[re.Pattern[str], str]
"""A line that matches means that this phase has begun."""
STARTING = "starting"
IMPORTING = "importing"
LOADING = "loading"
COMPILING = "compiling"
WARMING = "warming"


class StartPhases:
    """`begin` and `line` move on; `seconds` tells how long each phase took. `tell` is called at the start of each."""

    def __init__(self, milestones: Sequence[Milestone], tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._milestones = milestones
        self._tell = tell
        self._clock = clock
        self._phase = ""
        self._since = clock()
        self._seconds: dict[str, float] = {}

    def begin(self, phase: str) -> None:
        """The phase has begun, and the one before ended; nothing when it is this one already."""
        if phase == self._phase:
            return
        now = self._clock()
        self._settle(now)
        self._phase, self._since = phase, now
        self._tell(phase)

    def line(self, text: str) -> None:
        """A line of the server's output. The first one of an engine with milestones ends `starting`."""
        begun = next((phase for expression, phase in self._milestones if expression.search(text)), None)
        if begun is None and self._phase == STARTING and self._milestones:
            begun = IMPORTING
        if begun is not None:
            self.begin(begun)

    def seconds(self) -> dict[str, float]:
        """Phase -> seconds so far, to the hundredth."""
        self._settle(self._clock())
        return {phase: round(seconds, 2) for phase, seconds in self._seconds.items()}

    def _settle(self, now: float) -> None:
        if self._phase:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
