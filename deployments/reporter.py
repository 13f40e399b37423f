"""Delivers a replica's phases to the manager in order, however long it is away, without holding up the replica."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.messages import Phase, ReplicaIdentity
from deployments.manager_port import Manager, ManagerUnavailable

RETRY_S = 1.0
KEPT = 100

SENTENCES = {
    "downloading": "Looking for the model.",
    "starting": "The engine's process starts.",
    "importing": "The engine imports its libraries and reads the model's configuration.",
    "loading": "The weights are loaded.",
    "compiling": "The model is compiled.",
    "warming": "The engine warms up.",
    "smoke_test": "A first request checks that the model answers.",
    "adapters": "The adapters are loaded.",
    "ready": "The replica is ready.",
    "sleeping": "No request for a while: the engine sleeps, and the next request wakes it.",
    "awake": "A request woke the engine.",
    "draining": "The replica finishes what it has and stops.",
}
SHORT = {
    "downloading": "model",
    "starting": "process",
    "importing": "imports",
    "loading": "weights",
    "compiling": "compilation",
    "warming": "warm-up",
    "smoke_test": "first answer",
    "adapters": "adapters",
}
SHOWN_S = 0.05


class Reporter:
    """`tell` never waits; `run` delivers until cancelled; `flush` waits until all is delivered."""

    def __init__(self, manager: Manager, identity: ReplicaIdentity, clock: Callable[[], float] = time.time) -> None:
        self._manager = manager
        self._identity = identity
        self._clock = clock
        self._pending: collections.deque[Phase] = collections.deque(maxlen=KEPT)
        self._changed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def tell(
        self, name: str, *, message: str = "", reason: str = "", permanent: bool = False, data: Mapping[str, Any] | None = None
    ) -> None:
        """Queues a phase. Progress of one phase replaces the progress that is still waiting."""
        if len(self._pending) > 1 and self._pending[-1].name == name == "downloading":
            self._pending.pop()
        numbers = dict(data or {})
        self._pending.append(Phase(name, self._clock(), message or sentence(name, numbers), reason, permanent, numbers))
        self._empty.clear()
        self._changed.set()

    async def run(self) -> None:
        """Delivers for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._pending:
                await self._deliver(self._pending[0])
            self._empty.set()

    async def flush(self, timeout_s: float) -> None:
        """Waits until everything is delivered, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)

    async def _deliver(self, phase: Phase) -> None:
        try:
            await self._manager.report(self._identity, phase)
        except ManagerUnavailable:
            await asyncio.sleep(RETRY_S)
            return
        if self._pending and self._pending[0] is phase:
            self._pending.popleft()


def sentence(phase: str, data: Mapping[str, Any]) -> str:
    """What a phase means to a person, with its numbers."""
    if phase == "downloading" and data.get("total"):
        return f"Fetching the model: {data['bytes'] / 1e6:.1f} of {data['total'] / 1e6:.1f} MB."
    if phase == "awake" and "seconds" in data:
        return f"A request woke the engine in {data['seconds']:.1f} s."
    if phase == "ready" and "seconds" in data:
        parts = ", ".join(f"{SHORT[name]} {data[name]:.1f} s" for name in SHORT if data.get(name, 0) >= SHOWN_S)
        return f"The replica is ready after {data['seconds']:.1f} s" + (f": {parts}." if parts else ".")
    return SENTENCES.get(phase, "")
