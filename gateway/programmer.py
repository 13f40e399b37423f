"""Keeps one HAProxy at a snapshot: starts, programs, reloads and mends it, and cuts the streams that may not go on.

What to program is `program`'s, which streams `withdrawal`'s; where snapshots come from is `edge`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping

from cluster import snapshot
from gateway import haproxy, program, runtime, withdrawal
from gateway.activity import Activity

log = logging.getLogger(__name__)

SUSPECT_S = 600.0
"""So long after a change that took access away, streams are looked for that were let in before it and began after it: longer than a
request may be held and queued."""


class Programmer:
    """HAProxy and what it holds. Changes are made one at a time."""

    def __init__(
        self,
        proxy: haproxy.Haproxy,
        drain_limit: float,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`name` is this gateway's among the snapshot's; `wall` tells Unix seconds."""
        self._haproxy = proxy
        self._name = name
        self._wall = wall
        self._drain_limit = drain_limit
        self._clock = clock
        self._changing = asyncio.Lock()
        self._held: program.Program | None = None
        self._now: snapshot.Snapshot | None = None
        self._wanted = program.Program()
        self._left: dict[tuple[str, str], float] = {}
        self._doubtful = False
        self._key_map: dict[str, str] | None = None
        """What HAProxy's map of keys holds; None when it has to be compared whole."""
        self._known: program.Known = {}
        self._gateways = 1
        """Among how many the limits are divided."""
        self._expiries = withdrawal.Expiries()
        self._suspect_until = 0.0

    @property
    def started(self) -> bool:
        """Whether there is an HAProxy that should be running."""
        return self._held is not None

    async def adopt(self) -> bool:
        """Takes over a running HAProxy as it is; False when there is none."""
        async with self._changing:
            self._held = await self._haproxy.adopt()
            return self.started

    async def apply(self, now: snapshot.Snapshot, changed_keys: Collection[str] | None = None) -> None:
        """HAProxy holds `now` when this returns. `changed_keys`: the digests that differ from what was applied last, where that is known.

        Raises RuntimeFailed, HaproxyFailed; trying again is right after either.
        """
        async with self._changing:
            # A manager that has just started knows of none: then what was known holds.
            gateways = len({*now.gateways, self._name}) if now.gateways else self._gateways
            if gateways != self._gateways:
                self._gateways, self._key_map = gateways, None
                self._known.clear()
            if changed_keys is None or self._doubtful:
                self._key_map = None
            self._expiries.learn(now, changed_keys)
            fresh = self._held is None or self._haproxy.pid is None
            if fresh:
                await self._start(now)
            elif self._doubtful:
                self._held = await self._read()
            self._doubtful = True  # until it is done: HAProxy may have taken a part
            await self._program(now, changed_keys or ())
            before, self._now = self._now, now
            if not fresh and withdrawal.possible(before, now, changed_keys):
                self._suspect_until = self._clock() + SUSPECT_S
                await self._cut_withdrawn(now)
            self._doubtful = False

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
        assigned = self._held.assigned if self._held is not None else {}
        activity.see_servers([await worker.working() for worker in workers], assigned)

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
        keys = program.key_map(now.keys, self._gateways)
        await self._haproxy.start(await self._fit(now, program.Program(), keys))
        self._held, self._key_map = await self._read(), keys

    async def cut_withdrawn(self, known: snapshot.Snapshot) -> None:
        """Cuts streams whose key has expired, or that began although access to their endpoint was taken away before."""
        if self._now is None:
            self._expiries.learn(known, None)
        if self.started and (self._expiries.passed(self._wall()) or self._clock() < self._suspect_until):
            await self._cut_withdrawn(self._now or known)

    async def _cut_withdrawn(self, now: snapshot.Snapshot) -> None:
        for worker in await self._haproxy.workers():
            cut = await worker.cut(withdrawal.doomed(await worker.live(), now, self._wall()))
            if cut:
                log.info("%d streams were cut: they may not go on", cut)

    async def _program(self, now: snapshot.Snapshot, changed_keys: Collection[str]) -> None:
        complaints = await self._send(now, changed_keys)
        if complaints:
            log.warning("HAProxy refused %d commands, comparing again: %s", len(complaints), complaints[0])
            self._held, self._key_map = await self._read(), None
            complaints = await self._send(now, ())
        if complaints:
            raise runtime.RuntimeFailed(f"HAProxy refused: {complaints[0]}")

    async def _send(self, now: snapshot.Snapshot, changed_keys: Collection[str]) -> list[str]:
        files = self._haproxy.map_files
        if self._key_map is None:
            keys, commands = program.key_map(now.keys, self._gateways), []
        else:
            keys, commands = self._key_map, program.change_keys(self._key_map, now.keys, changed_keys, files["keys"], self._gateways)
        before = self._held or program.Program()
        wanted = await self._fit(now, before, keys)
        held = self._held or program.Program()
        if held is not before:
            commands = []  # a reload wrote the keys as they are now, and what is held was read anew: the comparison below finds the rest
        complaints = await self._haproxy.runtime.send([*commands, *program.diff(held, wanted, files)])
        if not complaints:
            self._held, self._wanted, self._key_map = program.reached(held, wanted), wanted, keys
        return complaints

    async def _fit(self, now: snapshot.Snapshot, held: program.Program, keys: Mapping[str, str]) -> program.Program:
        """The program for `now`; doubles the pool of slots until it fits, by a reload if HAProxy runs."""
        try:
            return program.program(now, held, self._haproxy.slots, keys, self._known, self._gateways)
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
        return program.program(now, held, self._haproxy.slots, keys, self._known, self._gateways)

    async def _delete(self, server: str, *, cut: bool) -> None:
        """HAProxy refuses to delete a server that something still runs on; then it is asked again later."""
        if cut:
            await self._haproxy.runtime.ask(f"shutdown sessions server {server}")
        await self._haproxy.runtime.ask(f"disable server {server};del server {server}")

    async def _read(self) -> program.Program:
        return await self._haproxy.runtime.held(self._haproxy.map_files)
