"""How long the body of a request may take: a grace, and beyond it as long as its bytes come fast enough.

Small bodies are read by HAProxy, which has a bound of its own; this is for large ones, wherever they are read.
"""

from __future__ import annotations

GRACE_S = 30.0
BYTES_PER_S = 100_000


def seconds(received: int) -> float:
    """Time since the request began after which it is too late, with so many bytes received."""
    return GRACE_S + received / BYTES_PER_S
