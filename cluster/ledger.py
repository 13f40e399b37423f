"""Tokens and money that keys and endpoints have used of their limits, and which of them are blocked because of it.

Limits come from the rows that are published anyway, use from `cluster.meter`, what was used before from the store. Whose
limits are not counted in tokens or money costs nothing here. Requests and concurrency are HAProxy's to count.
"""

from __future__ import annotations

import dataclasses
import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from cluster import errors, plan, reading, records, snapshot, windows
from cluster.limits import Limits
from cluster.store.base import Store
from cluster.store.usage_store import Payer
from cluster.usage_records import Spent, UsageRow

PATIENCE_S, FIRST_PATIENCE_S = 0.05, 15.0
"""How long publishing waits for a batch of use that is being stored, and how long the first time."""
OVERDUE_S = 1.0
TOKENS, MONEY = "token_limit", "budget_exceeded"
ROUNDING = 1e-9
"""Sums of money that are short of a budget by so small a part of it have reached it."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One limit. `name` is the field of Limits as users write it, `code` what requests are refused with."""

    name: str
    code: str
    window: windows.Kind
    most: float

    def of(self, spent: Spent) -> float:
        """What counts against it."""
        return spent.cost if self.code == MONEY else float(spent.tokens)

    def reached(self, spent: Spent) -> bool:
        """Whether nothing is left."""
        return self.of(spent) >= self.most * (1 - ROUNDING if self.code == MONEY else 1)


@dataclasses.dataclass
class _Account:
    rules: tuple[Rule, ...]
    spent: dict[windows.Kind, tuple[float, Spent]] = dataclasses.field(default_factory=dict)
    """Window -> (when it began, what was used in it); a window that is not here has not been read from the store."""


def rules_of(limits: Limits | records.Key) -> tuple[Rule, ...]:
    """The limits that are counted in tokens or money, of a key or of an endpoint."""
    found = (
        Rule("tokensPerMinute", TOKENS, "minute", limits.tokens_per_minute),
        Rule("tokensPerDay", TOKENS, "day", limits.tokens_per_day),
        Rule("budget", MONEY, limits.budget_period, limits.budget),
    )
    return tuple(rule for rule in found if rule.most > 0)


def of_key(key_id: str) -> str:
    """A key's name in `Snapshot.blocks`."""
    return f"k:{key_id}"


def of_endpoint(path: str) -> str:
    """An endpoint's."""
    return f"e:{path}"


def used_in(store: Store, window: windows.Kind, payer: Payer, names: Collection[str], now: float) -> tuple[float, Mapping[str, Spent]]:
    """When the present window began, and what each of these keys or endpoints has used in it, as the store has it."""
    began = windows.start(window, now)
    if window == "minute":
        return began, store.spent_lately(payer, began, names)
    return began, store.spent(payer, "" if window == "total" else windows.day(began), names)


class Ledger:
    """Thread-safe. Whoever stores use holds `order` from before the commit until `add` has returned: none is lost or counted twice."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.order = threading.Lock()
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._limits = _Limits()
        self._accounts: dict[str, _Account] = {}
        self._unread: set[str] = set()
        self._begun = False
        self._touched: set[str] = set()
        self._published: dict[str, snapshot.Block] = {}
        self._ends: list[tuple[float, str]] = []

    def changes(self, rows: reading.Reading) -> dict[str, snapshot.Block | None]:
        """Blocks that are new or other ones than at the last call, and those that have ended (None).

        The first call reads from the store what was used before. Raises Unavailable when the store does not answer then.
        """
        with self._lock:
            for subject, rules in self._limits.changes(rows):
                self._follow(subject, rules)
            unread = bool(self._unread)
        if unread or not self._begun:
            try:
                self._read()
            except errors.Unavailable:
                if not self._begun:
                    raise  # once begun, what is known is published; the rest at the next call
        now = self._clock()
        with self._lock:
            while self._ends and self._ends[0][0] <= now:
                self._touched.add(heapq.heappop(self._ends)[1])
            touched, self._touched = self._touched, set()
            return dict(self._decided(touched, now))

    def add(self, rows: Sequence[UsageRow]) -> bool:
        """Count new use; the caller holds `order`. True when something is used up now that was not, and is to be published."""
        now, news = self._clock(), False
        with self._lock:
            for row in rows:
                for subject in (of_key(row.key), of_endpoint(row.path)):
                    account = self._accounts.get(subject)
                    if account is not None:
                        _count(account, row)
                        if _block(account, now) != self._published.get(subject):
                            self._touched.add(subject)
                            news = True
            return news or bool(self._unread)

    def unlimited(self, path: str, keys: Collection[str]) -> list[str]:
        """Those of `keys` with which use of this endpoint counts against no limit."""
        with self._lock:
            if not self._begun or of_endpoint(path) in self._accounts:
                return []
            return [key for key in keys if of_key(key) not in self._accounts]

    def rest(self) -> float | None:
        """Seconds until the first block ends; None = none does by itself."""
        with self._lock:
            left = self._ends[0][0] - self._clock() if self._ends else None
        # One that ought to have ended could not be published: the database may be away.
        return left if left is None or left > 0 else OVERDUE_S

    def _follow(self, subject: str, rules: tuple[Rule, ...]) -> None:
        self._touched.add(subject)
        if not rules:
            self._accounts.pop(subject, None)
            self._unread.discard(subject)
            return
        account = self._accounts.setdefault(subject, _Account(()))
        account.rules = rules
        if any(rule.window not in account.spent for rule in rules):
            self._unread.add(subject)

    def _read(self) -> None:
        """What the unread have used before. Between two batches of use, else the next time."""
        if not self.order.acquire(timeout=PATIENCE_S if self._begun else FIRST_PATIENCE_S):
            if not self._begun:
                raise errors.Unavailable("What was used before cannot be read yet.", retry_after=1)
            return
        try:
            with self._lock:
                unread = frozenset(self._unread)
                wanted = {(rule.window, _payer(subject)) for subject in unread for rule in self._accounts[subject].rules}
            found = {which: used_in(self._store, *which, _named(which[1], unread), self._clock()) for which in wanted}
            with self._lock:
                self._unread -= unread
                self._put(unread, found)
                self._begun = True
        finally:
            self.order.release()

    def _put(self, subjects: Iterable[str], found: Mapping[tuple[windows.Kind, Payer], tuple[float, Mapping[str, Spent]]]) -> None:
        for subject in subjects:
            account = self._accounts.get(subject)
            if account is None:
                continue
            self._touched.add(subject)
            for rule in account.rules:
                if (rule.window, _payer(subject)) not in found:
                    self._unread.add(subject)  # its limits have changed meanwhile
                    continue
                began, sums = found[rule.window, _payer(subject)]
                account.spent[rule.window] = (began, sums.get(subject[2:], Spent()))
            account.spent = {rule.window: account.spent[rule.window] for rule in account.rules if rule.window in account.spent}

    def _decided(self, subjects: Iterable[str], now: float) -> Iterator[tuple[str, snapshot.Block | None]]:
        for subject in subjects:
            account = self._accounts.get(subject)
            block = _block(account, now) if account is not None else None
            if block == self._published.get(subject):
                continue
            if block is None:
                del self._published[subject]
            else:
                self._published[subject] = block
                if block.until:
                    heapq.heappush(self._ends, (block.until, subject))
            yield subject, block


class _Limits:
    """Who has limits of ours, followed by the identity of rows: what was not read again has not changed."""

    def __init__(self) -> None:
        self._endpoints: dict[str, tuple[plan.Wanted, str]] = {}
        """Endpoint id -> its row, and who it is in the ledger."""
        self._keys: dict[str, tuple[records.Key, ...]] = {}
        self._limited: dict[str, tuple[Rule, ...]] = {}

    def changes(self, rows: reading.Reading) -> Iterator[tuple[str, tuple[Rule, ...]]]:
        """Subjects whose limits are other ones than at the last call; () = it has none any more."""
        found: dict[str, tuple[Rule, ...]] = {}
        for identity in [identity for identity in self._endpoints if identity not in rows.wanted]:
            found[self._endpoints.pop(identity)[1]] = ()
        for identity, item in rows.wanted.items():
            if self._endpoints.get(identity, (None,))[0] is not item:
                subject = of_endpoint(item.endpoint.path)
                self._endpoints[identity] = (item, subject)
                found[subject] = rules_of(Limits.model_validate(item.endpoint.spec.get("limits") or {}, extra="ignore"))
        for owner in [owner for owner in {*self._keys, *rows.keys} if self._keys.get(owner) is not rows.keys.get(owner)]:
            keys = rows.keys.get(owner, ())
            found.update((of_key(row.id), ()) for row in self._keys.get(owner, ()))
            found.update((of_key(row.id), rules_of(row)) for row in keys if row.status == "active")
            self._keys[owner] = keys
            if not keys:
                del self._keys[owner]
        for subject, rules in found.items():
            if self._limited.get(subject, ()) != rules:
                self._limited[subject] = rules
                if not rules:
                    del self._limited[subject]
                yield subject, rules


def _payer(subject: str) -> Payer:
    return "key" if subject.startswith("k:") else "endpoint"


def _named(payer: Payer, subjects: Iterable[str]) -> set[str]:
    return {subject[2:] for subject in subjects if _payer(subject) == payer}


def _count(account: _Account, row: UsageRow) -> None:
    """Into the windows that the request ended in; one that is over gets no more."""
    for window, (began, spent) in account.spent.items():
        mine = windows.start(window, row.ended_at)
        if mine >= began:
            before = spent if mine == began else Spent()
            account.spent[window] = (mine, Spent(before.tokens + row.tokens, before.cost + row.cost))


def _spent(account: _Account, window: windows.Kind, now: float) -> Spent:
    began, spent = account.spent.get(window, (0.0, Spent()))
    return spent if began >= windows.start(window, now) else Spent()


def _block(account: _Account, now: float) -> snapshot.Block | None:
    """Of the limits that are used up the one that holds longest."""
    used_up = [rule for rule in account.rules if rule.reached(_spent(account, rule.window, now))]
    if not used_up:
        return None
    longest = max(used_up, key=lambda rule: windows.end(rule.window, now) or float("inf"))
    return snapshot.Block(longest.code, longest.name, float(longest.most), windows.end(longest.window, now))
