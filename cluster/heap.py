"""Gives memory that nobody uses back to the system.

A thousand commands leave the C library's heap with free memory in all its corners, which it keeps for later ones: 5 KiB for each
endpoint that was created.
"""

from __future__ import annotations

import ctypes


class Heap:
    """Looks on while changes come, and tidies up once after they have come to rest."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        """glibc's own; other C libraries have none."""
        self._seen = self._tidied = -1

    def look(self, version: int) -> bool:
        """`version` grows with every change. Whether it has tidied up now, which takes some milliseconds."""
        rests, self._seen = version == self._seen, version
        if not rests or version == self._tidied or self._trim is None:
            return False
        self._tidied = version
        self._trim(0)
        return True
