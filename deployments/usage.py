"""What each request uses of this server's engine: an account is opened when it comes and closed, once, when all of it has ended.

The guard opens accounts (`deployments.metering`); engines find the present request's by `ACCOUNT` and count into it, wherever in
their code that is. A closed account becomes one line of the spool (`deployments.usage_spool`), a `cluster.messages.Usage`; one that
is open when the server is killed is found in memory that outlives it (`deployments.usage_open`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, MutableSequence
from contextvars import ContextVar
from json.encoder import encode_basestring_ascii as _text
from typing import Protocol

from deployments import usage_open

LONGEST = 200
"""Characters of what clients choose (paths, names of models) that a record keeps."""
LEFT_BEHIND_S = 30.0
"""How long an account waits, after its answer's end, for parts that the engine has neither finished nor aborted."""


class Spool(Protocol):
    """Where records go."""

    def add(self, record: bytes, key: str) -> None:
        """Takes one record, of a request with this key. Neither waits nor raises."""
        ...


class Part(Protocol):
    """Work of an engine that goes on."""

    def count(self) -> None:
        """Adds what it has used so far to its account. Called once, at its end or the account's."""
        ...


class Clock:
    """Processor sharing: while n requests run, each has a 1/n of the time. All shares together are the time in which any ran."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running = 0
        self._virtual = 0.0
        """Seconds that a request would have had that ran from the beginning."""
        self._at = now()

    def enter(self) -> float:
        """One more request runs. What this returns is to be given to `leave`."""
        self._advance()
        self._running += 1
        return self._virtual

    def leave(self, entered: float) -> float:
        """One has ended: its share, in seconds."""
        self._advance()
        self._running -= 1
        return self._virtual - entered

    def _advance(self) -> None:
        now = self._now()
        if self._running:
            self._virtual += (now - self._at) / self._running
        self._at = now


class _Counter:
    """A number of an account that a kill of the server does not take along."""

    __slots__ = ("_cell",)

    def __init__(self, cell: int) -> None:
        self._cell = cell

    def __get__(self, account: Account, _: type[Account]) -> int:
        return account.cells[self._cell]

    def __set__(self, account: Account, value: int) -> None:
        account.cells[self._cell] = value
        account.cells[usage_open.SEEN] = time.time_ns() // 1000


class Account:
    """One request's. Engines write into the public fields, which mean what they mean in cluster.messages.Usage."""

    __slots__ = (
        *("_adapter", "_close", "_holds", "_model", "_prompts", "began", "broken", "cells", "closed", "contradictory"),
        *("entered", "first_token_s"),
        *("id", "key", "left", "parts", "queue_s", "route", "slot", "started_at", "tenant", "whole"),
    )
    status = _Counter(usage_open.STATUS)
    prompt_tokens = _Counter(usage_open.PROMPT)
    completion_tokens = _Counter(usage_open.COMPLETION)
    cached_tokens = _Counter(usage_open.CACHED)
    images = _Counter(usage_open.IMAGES)

    def __init__(
        self,
        close: Callable[[Account], None],
        identity: str,
        key: str,
        tenant: str,
        route: str,
        started_at: float,
        slot: usage_open.Slot | None = None,
    ) -> None:
        """With a `slot`, what is counted outlives the server."""
        self._close = close
        self._holds = 1
        self._prompts: set[str] = set()
        self.id, self.key, self.tenant, self.route = identity, key, tenant, route
        self._model = self._adapter = ""
        self.slot = slot
        self.cells: MutableSequence[int] | memoryview[int] = slot.cells if slot is not None else [0] * usage_open.CELLS
        self.started_at = round(started_at, 6)  # what a slot can hold: two records of one attempt have the same
        if slot is not None:
            slot.begin(identity, key, tenant, _cut(route), self.started_at)
        self.queue_s = self.first_token_s = 0.0
        self.began = self.entered = 0.0
        self.parts: set[Part] = set()
        """Those that go on, each with a hold of its own."""
        self.left = False
        """Its client left before the answer was whole, or was cut off."""
        self.whole = False
        """The answer was given to its end."""
        self.broken = False
        """The engine failed, whatever the answer's status says."""
        self.contradictory = False
        """What the request asks for leaves the engine nothing that it might write."""
        self.closed = False

    @property
    def model(self) -> str:
        """As the request named it."""
        return self._model

    @model.setter
    def model(self, name: str) -> None:
        self._model = name
        self._say()

    @property
    def adapter(self) -> str:
        """The one that answers; '' for none."""
        return self._adapter

    @adapter.setter
    def adapter(self, name: str) -> None:
        self._adapter = name
        self._say()

    def _say(self) -> None:
        if self.slot is not None:
            self.slot.say(_cut(self._model), _cut(self._adapter))

    def hold(self) -> None:
        """The account stays open until one more `release`: something works on that outlives the answer."""
        self._holds += 1

    def release(self) -> None:
        """What held it has ended; the last one closes it."""
        self._holds -= 1
        if self._holds == 0:
            self.end()
        elif self._holds == len(self.parts):  # the answer has ended: what is left of it is about to end, or forgotten
            asyncio.get_running_loop().call_later(LEFT_BEHIND_S, self.end)

    def end(self) -> None:
        """Closes it now, with what its parts have used so far."""
        if self.closed:
            return
        self.closed = True
        try:
            for part in self.parts:
                part.count()
        finally:
            self.parts.clear()
            self._close(self)

    def first(self, prompt: str) -> bool:
        """Whether this prompt has not been counted yet; it has been from now on."""
        known = prompt in self._prompts
        self._prompts.add(prompt)
        return not known

    def first_token(self) -> None:
        """The first token is there now; later calls change nothing."""
        if not self.first_token_s:
            self.first_token_s = time.monotonic() - self.began

    @property
    def outcome(self) -> str:
        """As in cluster.messages.Usage."""
        if self.broken:
            return "failed"
        if self.left:
            return "aborted"
        return "finished" if self.whole and self.status < 400 else "failed"


ACCOUNT: ContextVar[Account | None] = ContextVar("account", default=None)
"""Of the request that the present task works for; None for what nobody asked for (smoke requests, warm-up)."""


class Meter:
    """Opens the accounts of one server."""

    def __init__(
        self,
        spool: Spool,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        table: usage_open.Table | None = None,
    ) -> None:
        """Without a `table`, what is open when the server is killed leaves no record."""
        self._spool = spool
        self._table = table
        self._now, self._wall, self._new_id = now, wall, new_id
        self._clock = Clock(now)
        self._open: set[Account] = set()

    def open(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Account:
        """The account of a request that has just come. Its id is the edge's; one that has none gets one."""
        identity = key = tenant = b""
        for name, value in headers:
            if name == b"x-request-id":
                identity = value
            elif name == b"x-moorage-key-id":
                key = value
            elif name == b"x-moorage-tenant":
                tenant = value
        known = identity.decode("latin-1")[:LONGEST] or self._new_id()
        slot = self._table.take() if self._table is not None else None
        account = Account(self._record, known, key.decode("latin-1"), tenant.decode("latin-1"), path, round(self._wall(), 6), slot)
        account.began = self._now()
        account.entered = self._clock.enter()
        self._open.add(account)
        return account

    def settle(self) -> None:
        """This server is about to be killed: what runs is cut off, and has used what it has used so far."""
        for account in list(self._open):
            account.left = True
            account.end()

    def _record(self, account: Account) -> None:
        self._open.discard(account)
        share, total = self._clock.leave(account.entered), self._now() - account.began
        if account.slot is not None:
            account.slot.end(account.outcome)  # killed before the record is written, the server leaves the same one
        self._spool.add(_line(account, total, share), account.key)
        if account.slot is not None:
            account.cells = list(account.cells)
            account.slot.free()
            account.slot = None


def _line(account: Account, total: float, share: float) -> bytes:
    """The record as JSON. Written out, which takes a third of the time of a general encoder."""
    return (
        f'{{"id":{_text(account.id)},"key":{_text(account.key)},"tenant":{_text(account.tenant)},"route":{_chosen(account.route)},'
        f'"model":{_chosen(account.model)},"adapter":{_chosen(account.adapter)},"outcome":"{account.outcome}","status":{account.status},'
        f'"started_at":{account.started_at:.6f},"ended_at":{account.started_at + total:.6f},'
        f'"prompt_tokens":{account.prompt_tokens},"completion_tokens":{account.completion_tokens},'
        f'"cached_tokens":{account.cached_tokens},"images":{account.images},"queue_s":{account.queue_s:.6f},'
        f'"first_token_s":{account.first_token_s:.6f},"total_s":{total:.6f},"share_s":{share:.6f}}}'
    ).encode()


def _chosen(text: str) -> str:
    return _text(_cut(text))


def _cut(text: str) -> str:
    """What a client chose, so that any database can hold it: no half characters, no zeros."""
    return text[:LONGEST].encode(errors="replace").decode().replace("\0", "")
