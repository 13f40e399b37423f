"""Whether the gateways have what was changed: an answer to a change is to mean that it holds. And which gateways there are.

Changes are counted when they are hinted, again when they are published with a version, and versions when gateways have applied them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GATEWAY_SILENT_S = 5.0
"""A gateway that has said nothing for so long is not waited for: it reports each second while it lives."""
GATEWAY_GONE_S = 60.0
"""A gateway that has said nothing for so long is none any more. Its HAProxy serves on while its process is started again, and the
others must not take its part of the limits meanwhile."""


class InForce:
    """Thread-safe. Times are in seconds of any steady clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._condition = threading.Condition()
        self._hinted = 0
        self._published = (0, 0)
        """How many hints were published at least, and by which version."""
        self._gateways: dict[str, tuple[int, float]] = {}
        """Name -> the version it has applied, and when it said so last."""

    def hinted(self) -> None:
        """Something has changed in the store."""
        with self._condition:
            self._hinted += 1

    @property
    def count(self) -> int:
        """Of hints until now; taken before what is published is read."""
        with self._condition:
            return self._hinted

    def published(self, count: int, version: int) -> None:
        """Version `version` holds everything that had been hinted when `count` was taken."""
        with self._condition:
            self._published = (max(count, self._published[0]), version)
            self._condition.notify_all()

    def applied(self, gateway: str, version: int) -> bool:
        """The gateway's HAProxy holds this version. Repeated as a sign of life; True when nobody knew of that gateway."""
        with self._condition:
            new = gateway not in self._gateways
            self._gateways[gateway] = (version, self._clock())
            self._condition.notify_all()
            return new

    def gateways(self) -> tuple[str, ...]:
        """The names of those that there are; () while this manager is too young to have heard of all."""
        with self._condition:
            now = self._clock()
            if now - self._began < GATEWAY_SILENT_S:
                return ()
            for name in [name for name, (_, at) in self._gateways.items() if now - at >= GATEWAY_GONE_S]:
                del self._gateways[name]
            return tuple(sorted(self._gateways))

    def wait(self, timeout_s: float) -> bool:
        """Until every living gateway has all that was hinted before this call; False when that takes longer."""
        with self._condition:
            wanted, deadline = self._hinted, self._clock() + timeout_s
            while not self._holds(wanted):
                left = deadline - self._clock()
                if left <= 0:
                    return False
                self._condition.wait(left)
            return True

    def _holds(self, count: int) -> bool:
        published, version = self._published
        if published < count:
            return False
        now = self._clock()
        return all(applied >= version for applied, at in self._gateways.values() if now - at < GATEWAY_SILENT_S)
