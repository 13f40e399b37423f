"""Fetches kept prompts from a replica's server and hands them to the manager, as long as the endpoint wants them kept."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

from cluster import messages
from deployments.manager_port import Manager, ManagerUnavailable
from deployments.server_client import NoAnswer, ServerClient

PERIOD_S = 1.0
PENDING = 1000
"""Prompts that wait for a manager that is away; beyond it the oldest are dropped."""
BATCH = 100


class PromptShipper:
    """`order` says what is wanted now, `run` works until cancelled."""

    def __init__(self, manager: Manager, identity: messages.ReplicaIdentity, client: ServerClient, period_s: float = PERIOD_S) -> None:
        self._manager = manager
        self._identity = identity
        self._client = client
        self._period_s = period_s
        self._wanted = self._told = messages.PromptPolicy()
        self._ordered = asyncio.Event()
        self._pending: collections.deque[messages.Prompt] = collections.deque(maxlen=PENDING)

    def order(self, wanted: messages.PromptPolicy) -> None:
        """The endpoint's policy, as the manager says it; repeating it costs nothing."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._ordered.set()

    async def run(self) -> None:
        """For ever; does nothing while no prompts are wanted."""
        while True:
            try:
                await self.step()
            except (NoAnswer, ManagerUnavailable):
                pass  # tried again
            else:
                if not self._wanted.prompts and self._told == self._wanted:
                    await self._ordered.wait()
            self._ordered.clear()
            await asyncio.sleep(self._period_s)

    async def step(self) -> None:
        """Tell the server what is wanted, fetch what it has, hand it over. Raises NoAnswer, ManagerUnavailable."""
        if self._told != self._wanted:
            wanted = self._wanted
            await self._client.tell_prompts(dataclasses.asdict(wanted))
            self._told = wanted
        if not self._wanted.prompts:
            self._pending.clear()
            return
        self._pending.extend(messages.Prompt(**fields) for fields in await self._client.prompts())
        while self._pending:
            batch = list(self._pending)[:BATCH]
            await self._manager.prompts(self._identity, batch)
            for _ in batch:
                self._pending.popleft()
