"""Keeps one HAProxy at a snapshot: starts, programs, reloads and mends it, and cuts the streams of revoked keys.

What to program is `program`'s; where snapshots come from is `edge`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from cluster import snapshot
from gateway import haproxy, program, runtime
from gateway.activity import Activity

log = logging.getLogger(__name__)


class Programmer:
    """HAProxy and what it holds. Changes are made one at a time."""

    def __init__(self, proxy: haproxy.Haproxy, drain_limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._haproxy = proxy
        self._drain_limit = drain_limit
        self._clock = clock
        self._changing = asyncio.Lock()
        self._held: program.Program | None = None
        self._now: snapshot.Snapshot | None = None
        self._wanted = program.Program()
        self._left: dict[tuple[str, str], float] = {}
        self._keys: Mapping[str, snapshot.Key] = {}
        self._key_map: dict[str, str] = {}

    @property
    def started(self) -> bool:
        """Whether there is an HAProxy that should be running."""
        return self._held is not None

    async def adopt(self) -> bool:
        """Takes over a running HAProxy as it is; False when there is none."""
        async with self._changing:
            self._held = await self._haproxy.adopt()
            return self.started

    async def apply(self, now: snapshot.Snapshot) -> None:
        """HAProxy holds `now` when this returns. Raises RuntimeFailed, HaproxyFailed; trying again is right after either."""
        async with self._changing:
            if self._held is None or self._haproxy.pid is None:
                await self._start(now)
            await self._program(now)
            self._now = now

    async def mend(self, known: snapshot.Snapshot) -> None:
        """Starts HAProxy again if it is gone, with what it was given last, else with what is `known`. Raises as `apply`."""
        if self.started and self._haproxy.pid is None:
            log.error("HAProxy is gone: it is started again")
            await self.apply(self._now or known)

    async def look(self, activity: Activity, at: float) -> None:
        """Shows the counting tables to `activity`, those of workers from before a reload too."""
        workers = await self._haproxy.workers()
        endpoints = {worker.name: await worker.counts("st_ep") for worker in workers}
        activity.see(endpoints, {worker.name: await worker.counts("st_key") for worker in workers}, at)

    async def delete_leftovers(self) -> None:
        """Servers that left the snapshot go when nothing runs on them any more, or after a long bound."""
        async with self._changing:
            if self._held is None or self._now is None:
                return
            left = program.leftovers(self._held, self._wanted)
            self._left = {pair: self._left.get(pair, self._clock()) for pair in left}
            for pair, since in self._left.items():
                await self._delete("/".join(pair), cut=self._clock() - since > self._drain_limit)
            if left:
                self._held = self._held.keeping((await self._read()).servers)

    async def _start(self, now: snapshot.Snapshot) -> None:
        """A fresh HAProxy whose files hold `now` already."""
        await self._haproxy.start(await self._fit(now, program.Program()))
        self._held = await self._read()

    async def _program(self, now: snapshot.Snapshot) -> None:
        before = self._held or program.Program()
        complaints = await self._send(now)
        if complaints:
            log.warning("HAProxy refused %d commands, comparing again: %s", len(complaints), complaints[0])
            self._held = await self._read()
            complaints = await self._send(now)
        if complaints:
            self._held = await self._read()
            raise runtime.RuntimeFailed(f"HAProxy refused: {complaints[0]}")
        await self._cut_revoked(before, now)

    async def _send(self, now: snapshot.Snapshot) -> list[str]:
        wanted = await self._fit(now, self._held or program.Program())
        held = self._held or program.Program()
        complaints = await self._haproxy.runtime.send(program.diff(held, wanted, self._haproxy.map_files))
        if not complaints:
            self._held, self._wanted = program.reached(held, wanted), wanted
        return complaints

    async def _fit(self, now: snapshot.Snapshot, held: program.Program) -> program.Program:
        """The program for `now`; doubles the pool of slots until it fits, by a reload if HAProxy runs."""
        try:
            return self._made(now, held)
        except program.OutOfSlots as short:
            slots = self._haproxy.slots
            while slots < short.needed:
                slots *= 2
            log.info("the pool of slots grows to %d", slots)
        if self._haproxy.pid is None:
            self._haproxy.slots = slots
        else:
            await self._haproxy.reload(held, slots)
            held = self._held = await self._read()
        return self._made(now, held)

    def _made(self, now: snapshot.Snapshot, held: program.Program) -> program.Program:
        if now.keys is not self._keys:
            self._keys, self._key_map = now.keys, program.key_map(now.keys)
        return program.program(now, held, self._haproxy.slots, self._key_map)

    async def _cut_revoked(self, before: program.Program, now: snapshot.Snapshot) -> None:
        old = before.maps.get("keys", {})
        gone = {value.split("|", 1)[0] for digest, value in old.items() if digest not in now.keys} if old is not self._key_map else set()
        gone -= {row.id for row in now.keys.values()} if gone else set()
        if gone:
            for worker in await self._haproxy.workers():
                await worker.cut(gone)

    async def _delete(self, server: str, *, cut: bool) -> None:
        """HAProxy refuses to delete a server that something still runs on; then it is asked again later."""
        if cut:
            await self._haproxy.runtime.ask(f"shutdown sessions server {server}")
        await self._haproxy.runtime.ask(f"disable server {server};del server {server}")

    async def _read(self) -> program.Program:
        return await self._haproxy.runtime.held(self._haproxy.map_files)
