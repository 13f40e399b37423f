"""One caller's wish for a model: whether it still stands, how far it is, and how patiently it is pursued."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from deployments.sources.errors import Cancelled, SourceError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Patience:
    """How often something that may pass is tried, and how long it is waited for in between (doubling, in seconds)."""

    attempts: int = 6
    first_delay: float = 0.5
    longest_delay: float = 8.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(self.longest_delay, self.first_delay * 2.0 ** (failures - 1))


class Run:
    """Stop signal and progress, used by many threads."""

    def __init__(
        self,
        report: Callable[[int, int | None], None],
        patience: Patience = Patience(),
        *,
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report(done, total)` in bytes is called at most once per `interval` seconds, and at the end."""
        self.patience = patience
        self._report, self._interval, self._clock = report, interval, clock
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._done, self._total, self._last = 0, 0, float("-inf")

    def stop(self) -> None:
        """Ends all work for this wish soon; nothing is reported from here on."""
        self._stopped.set()

    def check(self) -> None:
        """Raises Cancelled once stopped."""
        if self._stopped.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Waits. Raises Cancelled as soon as it is stopped."""
        if self._stopped.wait(seconds):
            raise Cancelled

    def begin(self, total: int) -> None:
        """Says how many bytes there will be in all."""
        with self._lock:
            self._done, self._total = 0, total

    def add(self, count: int) -> None:
        """Counts bytes that are here now; a negative number for some that had to be thrown away."""
        with self._lock:
            self._done += count
            self._tell()

    def at(self, done: int) -> None:
        """States the bytes that are here, whoever brought them."""
        with self._lock:
            self._done = min(done, self._total)
            self._tell()

    def _tell(self) -> None:
        now = self._clock()
        if self._stopped.is_set() or (self._done != self._total and now - self._last < self._interval):
            return
        self._last = now
        self._report(self._done, self._total)


def retrying(call: Callable[[], T], run: Run, patience: Patience | None = None) -> T:
    """The result of `call`, tried again after errors that may pass; with the run's patience where none is given."""
    patience = patience or run.patience
    failures = 0
    while True:
        run.check()
        try:
            return call()
        except SourceError as error:
            failures += 1
            if error.permanent or failures >= patience.attempts:
                raise
        run.wait(patience.delay(failures))
