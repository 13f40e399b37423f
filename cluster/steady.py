"""Unix time that never jumps: what is measured with it is right whatever happens to the machine's clock."""

from __future__ import annotations

import time


class SteadyClock:
    """Unix seconds as of its making, counted on by the monotonic clock."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return self._offset + time.monotonic()
