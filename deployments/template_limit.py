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

SECONDS = 2.0
"""Of its thread's CPU, so that it does not matter how busy the machine is. Real templates take milliseconds."""
LOOK_S = 0.2


def cpu_of(thread: int) -> float:
    """Seconds of CPU that a thread of this process has used until now."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


class TemplateTooSlow(ValueError):
    """The chat template of this model did not end within its time: it loops, or does far too much."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Limit:
    """Ends calls that take too long by raising TemplateTooSlow in their thread, at its next step of Python."""

    def __init__(self, seconds: float = SECONDS, used: Callable[[int], float] = cpu_of) -> None:
        """`used` tells the seconds that a thread has worked."""
        self._seconds = seconds
        self._used = used
        self._running: dict[int, float] = {}
        self._leaving = threading.Lock()
        """Needed to leave the table: who is in it while this is held is alive. Of a thread that has ended nothing may be asked."""
        self._some = threading.Event()
        self._watching = False

    def bounded(self, render: Callable[..., Any]) -> Callable[..., Any]:
        """`render` with an end."""

        @functools.wraps(render)
        def within(*args: Any, **kwargs: Any) -> Any:
            thread = threading.get_ident()
            if thread in self._running:  # a template within a template: the outer one's time
                return render(*args, **kwargs)
            self._running[thread] = self._used(thread) + self._seconds
            self._watch()
            try:
                return render(*args, **kwargs)
            finally:
                with self._leaving:
                    ended = self._running.pop(thread, None) is None
                if ended:  # what was raised must not hit what comes next
                    _raise_in(thread, None)

        return within

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch_slow_ones, name="template limit", daemon=True).start()
        self._some.set()

    def _watch_slow_ones(self) -> None:
        while self._some.wait():
            self._some.clear()
            while self._running:
                time.sleep(min(LOOK_S, self._seconds / 10))
                self._end_slow_ones()

    def _end_slow_ones(self) -> None:
        with self._leaving:
            for thread in [thread for thread, limit in list(self._running.items()) if self._used(thread) > limit]:
                del self._running[thread]
                _raise_in(thread, TemplateTooSlow)


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Python's own way to raise in another thread; None takes back what was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
