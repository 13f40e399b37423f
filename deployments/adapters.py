"""A replica's LoRA adapters: asks the manager which there are, brings them, checks them, has the engine load and unload them.

What is wanted changes while requests run. A name is refused from the moment that its adapter is unwanted; answers that have
begun with it go on to their end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from cluster import errors, lora, messages
from deployments import sources
from deployments.manager_port import Manager, ManagerUnavailable
from deployments.server_client import NoAnswer, NotLoaded, ServerClient

log = logging.getLogger(__name__)
AGAIN_S = (5.0, 30.0, 120.0, 600.0)
"""Pauses before an adapter is tried again whose source may come back; the last one is repeated."""
SWITCHED_OFF = "The engine of this revision runs without LoRA: a newer revision has it."


@dataclasses.dataclass(frozen=True)
class Hands:
    """What the supervisor lends: ways to bring and check an adapter, to tell events and that an announcement is due."""

    fetch: Callable[[messages.Adapter], Awaitable[Path]]
    """Raises sources.SourceError."""
    check: Callable[[messages.Adapter, Path], None]
    """Blocks. Raises lora.Refused, OSError."""
    tell: Callable[[str, str, str, str], None]
    """An event: its kind, the adapter's name, the reason, the message."""
    changed: Callable[[], None]
    public: Callable[[str], str]
    """A message without what is not for users."""


@dataclasses.dataclass
class Held:
    """One wanted adapter. `settled` is set at its first outcome."""

    state: messages.AdapterState
    settled: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The adapter's."""
        return self.state.adapter.name


class Adapters:
    """`settle` for the start, then `follow` for ever."""

    def __init__(self, manager: Manager, identity: messages.ReplicaIdentity, client: ServerClient, hands: Hands, *, enabled: bool) -> None:
        """`enabled`: the engine can load adapters. One that cannot refuses their names all the same."""
        self._manager = manager
        self._identity = identity
        self._client = client
        self._hands = hands
        self._enabled = enabled
        self._wanted = messages.Adapters()
        self._held: dict[str, Held] = {}
        self._given: set[str] = set()
        """Names that the engine may have an adapter under."""
        self._engine = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def states(self) -> tuple[messages.AdapterState, ...]:
        """What became of each wanted adapter until now."""
        return tuple(held.state for held in self._held.values())

    async def settle(self, wanted: messages.Adapters) -> None:
        """Returns when each adapter is loaded, or has failed once. Raises NoAnswer."""
        await self.apply(wanted)
        if self._enabled:
            await asyncio.gather(*(held.settled.wait() for held in self._held.values()))

    async def follow(self, retry_s: float) -> None:
        """For ever: makes the engine have what the manager wants."""
        while True:
            try:
                wanted = await self._manager.adapters(self._identity, self._wanted)
                if wanted != self._wanted:
                    await self.apply(wanted)
            except (ManagerUnavailable, NoAnswer, errors.MoorageError):
                await asyncio.sleep(retry_s)

    async def apply(self, wanted: messages.Adapters) -> None:
        """The names mean what they should when this returns; loading goes on. Raises NoAnswer, and may then be called again."""
        present = {adapter.name: adapter for adapter in wanted.wanted}
        for held in list(self._held.values()):
            if present.get(held.name) != held.state.adapter:
                del self._held[held.name]
                if held.task is not None:
                    held.task.cancel()
        for adapter in wanted.wanted:
            self._held.setdefault(adapter.name, Held(self._pending(adapter)))
        await self._tell_names(wanted.retired)
        self._wanted = wanted
        for held in self._held.values() if self._enabled else ():
            held.task = held.task or self._spawn(self._bring(held))
        for name in sorted(self._given - self._held.keys()):
            self._spawn(self._remove(name))
        self._hands.changed()

    def stop(self) -> None:
        """Ends what runs in the background."""
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None or isinstance(task.exception(), NotLoaded):
            return  # the engine's refusal is told as the adapter's state
        log.warning("work on an adapter ended with %r", task.exception())

    def _pending(self, adapter: messages.Adapter) -> messages.AdapterState:
        return messages.AdapterState(adapter, "pending", message="It is fetched and loaded." if self._enabled else SWITCHED_OFF)

    async def _tell_names(self, retired: tuple[str, ...] | None = None) -> None:
        table: Mapping[str, Mapping[str, str]] = {
            held.name: {"state": held.state.state, "message": held.state.message} for held in self._held.values()
        }
        await self._client.tell_adapters(table, self._wanted.retired if retired is None else retired)

    async def _bring(self, held: Held) -> None:
        """Until it is loaded, or cannot be."""
        pauses = list(AGAIN_S)
        while True:
            outcome, again = await self._attempt(held)
            if self._held.get(held.name) is not held:
                return
            await self._outcome(held, outcome)
            if not again:
                return
            await asyncio.sleep(pauses.pop(0) if len(pauses) > 1 else pauses[0])

    async def _attempt(self, held: Held) -> tuple[messages.AdapterState, bool]:
        """What came of it, and whether trying again may help."""
        adapter = held.state.adapter
        try:
            folder = await self._hands.fetch(adapter)
            await asyncio.to_thread(self._hands.check, adapter, folder)
            # Not to be cut short: the engine would have an adapter that nobody here knows of.
            await asyncio.shield(self._spawn(self._load(held, folder)))
        except sources.SourceError as exc:
            return self._failed(adapter, exc.reason, f"The adapter {adapter.name}: {exc.message}."), not exc.permanent
        except lora.Refused as exc:
            return self._failed(adapter, exc.reason, exc.message), False
        except NotLoaded as exc:
            return self._failed(adapter, "LoadFailed", f"The engine refused the adapter {adapter.name}: {exc}"), False
        except (NoAnswer, OSError) as exc:
            return self._failed(adapter, "LoadFailed", f"The adapter {adapter.name} was not loaded: {type(exc).__name__}."), True
        return messages.AdapterState(adapter, "ready"), False

    async def _load(self, held: Held, folder: Path) -> None:
        async with self._engine:
            if self._held.get(held.name) is not held:
                return
            if held.name in self._given:
                await self._client.unload_adapter(held.name)
            self._given.add(held.name)
            await self._client.load_adapter(held.name, folder)

    async def _remove(self, name: str) -> None:
        async with self._engine:
            if name in self._given and name not in self._held:
                await self._client.unload_adapter(name)
                self._given.discard(name)
                self._hands.tell("adapter_removed", name, "", f"The adapter {name} was removed; answers that it had begun go on.")

    async def _outcome(self, held: Held, outcome: messages.AdapterState) -> None:
        news = outcome != held.state
        held.state = outcome
        try:
            await self._tell_names()
        except NoAnswer:
            log.warning("the server was not told of the adapter %s", held.name)
        held.settled.set()
        if news:
            message = outcome.message or f"The adapter {held.name} is loaded."
            self._hands.tell(f"adapter_{outcome.state}", held.name, outcome.reason, message)
            self._hands.changed()

    def _failed(self, adapter: messages.Adapter, reason: str, message: str) -> messages.AdapterState:
        return messages.AdapterState(adapter, "failed", reason, self._hands.public(message))
