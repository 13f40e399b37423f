"""How long a replica waits for what."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Timing:
    """Periods and limits in seconds."""

    heartbeat: float = 5.0
    """Between two announcements."""
    retry: float = 1.0
    """Between attempts to reach the manager."""
    quiet: float = 2.0
    """How long no request must have been in flight before a drained server is stopped: HAProxy looks at /health every second."""
    grace: float = 5.0
    """From SIGTERM to SIGKILL."""
    farewell: float = 3.0
    """For last words to the manager."""
    smoke: float = 180.0
    poll_first: float = 0.02
    poll_longest: float = 0.1
    nap_poll: float = 1.0
    """How often an engine that may sleep is looked at."""
    nap: float = 120.0
    """For the engine to fall asleep: it copies its weights."""
