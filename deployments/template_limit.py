"""An end for chat templates: a template is code of the model's, runs on a thread of the API server's, and may loop for hours.

Used in engine servers only, where the plugin puts `bounded` round Jinja's own `render`.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

SECONDS = 10.0
"""Real templates take milliseconds."""


class TemplateTooSlow(ValueError):
    """The chat template of this model did not end within its time: it loops, or does far too much."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Limit:
    """Ends calls that take too long by raising TemplateTooSlow in their thread, at its next step of Python."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._running: dict[int, tuple[float, threading.Event]] = {}
        self._some = threading.Event()
        self._watching = False

    def bounded(self, render: Callable[..., Any]) -> Callable[..., Any]:
        """`render` with an end."""

        @functools.wraps(render)
        def within(*args: Any, **kwargs: Any) -> Any:
            thread = threading.get_ident()
            if thread in self._running:  # a template within a template: the outer one's time
                return render(*args, **kwargs)
            told = threading.Event()
            self._running[thread] = (self._clock() + self._seconds, told)
            self._watch()
            try:
                return render(*args, **kwargs)
            finally:
                if self._running.pop(thread, None) is None:  # the watcher has it: what it raises must not hit what comes next
                    told.wait()
                    _raise_in(thread, None)

        return within

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._end_slow_ones, name="template limit", daemon=True).start()
        self._some.set()

    def _end_slow_ones(self) -> None:
        while self._some.wait():
            self._some.clear()
            while self._running:
                time.sleep(self._seconds / 10)
                self._end_those_after(self._clock())

    def _end_those_after(self, now: float) -> None:
        for thread, (deadline, told) in list(self._running.items()):
            if deadline < now and self._running.pop(thread, None) is not None:
                _raise_in(thread, TemplateTooSlow)
                told.set()


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Python's own way to raise in another thread; None takes back what was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
