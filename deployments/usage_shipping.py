"""Delivers usage records to the manager: those of this replica's server at once, those that the dead left on this node in time.

A record is told until the manager has stored it, so it may be told twice: its id is the key. One send is under way at a time;
what comes meanwhile goes with the next. Records that count against no limit in tokens or money, as the manager says when it takes
earlier ones of the same keys, are gathered for a moment: a call for each would cost as much as many small answers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

from cluster import errors
from cluster.messages import ReplicaIdentity
from deployments import usage_spool
from deployments.manager_port import Manager, ManagerUnavailable

LOOK_S = 1.0
"""After so long without the bell the spool is looked at all the same."""
GATHER_S = 0.5
"""How long records may wait for others, when nobody's limit waits for them."""
MOST_KEYS = 10_000
"""That are known to have no such limit."""
ADOPT_S = 30.0
"""Between two looks for what the dead left."""
REFUSALS = (errors.InvalidRequest, errors.NotFound)
"""What the manager will never take. Anything else it says may be otherwise later."""


class Shipping:
    """Of one replica. `open` makes the spool, `run` delivers for ever, `flush` what is there, `close` leaves the rest to others."""

    def __init__(
        self,
        manager: Manager,
        identity: ReplicaIdentity,
        parent: Path,
        say: Callable[[str], None],
        *,
        retry_s: float = 1.0,
        gather_s: float = GATHER_S,
        adopt_s: float = ADOPT_S,
    ) -> None:
        """`parent` holds the node's spools; `say` writes a line into the replica's log."""
        self._manager, self._identity, self._parent, self._say = manager, identity, parent, say
        self._retry_s, self._gather_s, self._adopt_s = retry_s, gather_s, adopt_s
        self._own: usage_spool.Reader | None = None
        self._adopted: list[usage_spool.Reader] = []
        self._bell = -1
        self._rung = asyncio.Event()
        self._gathered: asyncio.TimerHandle | None = None
        self._unlimited: set[str] = set()
        self._sending = asyncio.Lock()

    def open(self) -> Path | None:
        """The folder that the server is to be told of. None where there can be none: it serves all the same."""
        try:
            self._own = usage_spool.create(self._parent, self._identity)
            # Open for writing too, so that it never comes to its end.
            self._bell = os.open(self._own.folder / "bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            self._say(f"ERROR moorage: usage is not recorded: {exc}")
            return None
        asyncio.get_running_loop().add_reader(self._bell, self._ring)
        return self._own.folder

    async def run(self) -> None:
        """Delivers what this replica's server records, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), LOOK_S)
            self._rung.clear()
            self._gather_no_more()
            try:
                await self._deliver_own()
            except OSError as exc:
                self._say(f"ERROR moorage: usage records cannot be read: {exc}")

    async def adopt(self) -> None:
        """Delivers what dead replicas of this node left, for ever."""
        while True:
            self._adopted += usage_spool.adopt(self._parent)
            while self._adopted:
                spool = self._adopted[0]
                finished = await self._finished(spool)
                if spool in self._adopted:  # not closed meanwhile
                    self._adopted.remove(spool)
                    if finished:
                        spool.remove()
                    else:
                        spool.close()  # left to others, and to a later look
            await asyncio.sleep(self._adopt_s)

    async def flush(self, timeout_s: float) -> None:
        """Delivers what is there and can be read, in `timeout_s` at most.

        To be called when the server has ended: what it was doing is delivered too.
        """
        self._salvage()
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(self._deliver_own(), timeout_s)

    def close(self) -> None:
        """To be called when the server has ended. What has not been delivered stays, for another replica of this node."""
        self._gather_no_more()
        if self._bell >= 0:
            asyncio.get_running_loop().remove_reader(self._bell)
            os.close(self._bell)
            self._bell = -1
        for spool in self._adopted:
            spool.close()
        self._adopted.clear()
        self._salvage()
        if self._own is not None:
            with contextlib.suppress(OSError):  # what cannot be read stays
                if self._own.next() is None:
                    self._own.remove()
            self._own.close()
            self._own = None

    def _salvage(self) -> None:
        if self._own is not None:
            try:
                self._own.salvage()
            except OSError as exc:
                self._say(f"ERROR moorage: what ran when the server ended is not recorded yet: {exc}")

    def _ring(self) -> None:
        try:
            told = os.read(self._bell, usage_spool.RING_BYTES)
        except BlockingIOError:
            return
        if len(told) == usage_spool.RING_BYTES or not self._unlimited.issuperset(told.decode(errors="replace").split("\n")[:-1]):
            self._rung.set()
        elif self._gathered is None:
            self._gathered = asyncio.get_running_loop().call_later(self._gather_s, self._rung.set)

    def _gather_no_more(self) -> None:
        if self._gathered is not None:
            self._gathered.cancel()
            self._gathered = None

    def _learn(self, told: Collection[str], unlimited: Collection[str]) -> None:
        if len(self._unlimited) > MOST_KEYS:
            self._unlimited.clear()
        self._unlimited.difference_update(told)
        self._unlimited.update(unlimited)

    async def _deliver_own(self) -> None:
        async with self._sending:
            if self._own is not None:
                await self._deliver(self._own, self._identity)

    async def _finished(self, spool: usage_spool.Reader) -> bool:
        """Delivers what it has; False when that cannot be read now."""
        try:
            identity = spool.identity
        except (FileNotFoundError, ValueError, TypeError):  # its replica died while it was made: there is nothing in it
            return True
        except OSError as exc:
            return self._unreadable(exc)
        try:
            spool.salvage()
            await self._deliver(spool, identity)
        except OSError as exc:
            return self._unreadable(exc)
        return True

    def _unreadable(self, exc: OSError) -> bool:
        self._say(f"ERROR moorage: usage records cannot be read: {exc}")
        return False

    async def _deliver(self, spool: usage_spool.Reader, identity: ReplicaIdentity) -> None:
        while (batch := spool.next()) is not None:
            if batch.damaged:
                self._say(f"WARNING moorage: {batch.damaged} damaged usage records are skipped")
            if batch.records:
                unlimited = await self._send(identity, batch)
                if spool is self._own:
                    self._learn({record.key for record in batch.records}, unlimited)
            spool.acknowledge(batch)

    async def _send(self, identity: ReplicaIdentity, batch: usage_spool.Batch) -> Collection[str]:
        """Until the manager has them. Which of their keys have no limit that waits for such."""
        while True:
            try:
                return await self._manager.usage(identity, batch.records)
            except REFUSALS as exc:
                self._say(f"ERROR moorage: the manager refuses {len(batch.records)} usage records: {exc.message}")
                return ()
            except (ManagerUnavailable, errors.MoorageError):
                await asyncio.sleep(self._retry_s)
