"""The engine's sleep mode, between requests: its weights leave the accelerator while nobody asks, and are back before the next answer.

Warmer than zero: the process, its connections and what was compiled stay. A request that finds the engine asleep wakes it
and waits; nobody outside the server has to know.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

Step = Callable[[], Awaitable[object]]


class Busy(Exception):
    """There are requests: the engine does not go to sleep."""


def end_process() -> None:
    """An engine that does not wake is of no use; a replica whose server ended is replaced, and its requests are tried elsewhere."""
    os._exit(1)


class Nap:
    """One engine's. `sleep` and `wake` are the engine's own; `give_up` is called when it cannot be woken."""

    def __init__(self, sleep: Step, wake: Step, give_up: Callable[[], None] = end_process) -> None:
        self._sleep = sleep
        self._wake = wake
        self._give_up = give_up
        self._turn = asyncio.Lock()
        self.asleep = False
        self.woke_in_s = 0.0
        """How long the last waking took."""

    async def begin(self, busy: Callable[[], bool]) -> None:
        """Puts the engine to sleep; what arrives from now on wakes it. Raises Busy."""
        async with self._turn:
            if busy():
                raise Busy
            if self.asleep:
                return
            self.asleep = True  # before anything is awaited: a request that arrives meanwhile waits for its turn to wake it
            try:
                await self._sleep()
            except Exception:  # whatever an engine raises, requests may not meet one that half sleeps
                log.exception("the engine could not be put to sleep")
                await self._rouse()

    async def end(self) -> None:
        """Returns when the engine is awake. A caller that goes away does not stop the waking."""
        if self.asleep:
            await asyncio.shield(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        async with self._turn:
            if self.asleep:
                await self._rouse()

    async def _rouse(self) -> None:
        began = time.monotonic()
        try:
            await self._wake()
        except Exception:  # whatever it is, the server is given up
            log.exception("ERROR: the engine could not be woken")
            self._give_up()
            raise
        self.woke_in_s = time.monotonic() - began
        self.asleep = False
