"""Metering in memory, the twin; see `cluster.store.usage_store.UsageStore` for what each method promises."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cluster import records
from cluster.store import usage_sums
from cluster.store.usage_store import Payer
from cluster.usage_records import Asked, CapacityDay, Held, Spent, UsageDay, UsageRow, Used

R = TypeVar("R", UsageRow, CapacityDay)
D = TypeVar("D", UsageDay, CapacityDay)
CapacityPlace = tuple[str, str, str, int, str, str]


class MemoryUsage:
    """Part of MemoryStore, whose lock it uses."""

    _lock: threading.RLock
    _keys: dict[str, records.Key]
    _namespaces: dict[str, records.Namespace]
    _former: dict[tuple[str, str], int]

    def __init__(self) -> None:
        self._usage: dict[str, UsageRow] = {}
        self._usage_days: dict[usage_sums.Place, UsageDay] = {}
        self._capacity: dict[CapacityPlace, CapacityDay] = {}
        self._accounted: dict[str, float] = {}

    def add_usage(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        with self._lock:
            fresh = []
            for row in rows:
                if row.id in self._usage:
                    continue
                placed = self._usage[row.id] = self._set_apart(row)
                where = usage_sums.place(placed)
                self._usage_days[where] = usage_sums.add(self._usage_days.get(where) or UsageDay(*where), placed)
                fresh.append(row)
            return fresh

    def usage_rows(self, ids: Collection[str]) -> dict[str, UsageRow]:
        with self._lock:
            return {identity: self._usage[identity] for identity in ids if identity in self._usage}

    def prune_usage(self, before: float, limit: int = 10_000) -> int:
        with self._lock:
            old = [identity for identity, row in self._usage.items() if row.stored_at < before][:limit]
            for identity in old:
                del self._usage[identity]
            return len(old)

    def spent(self, payer: Payer, since: str, only: Collection[str] | None = None) -> dict[str, Spent]:
        with self._lock:
            rows = [row for row in self._usage_days.values() if row.day >= since]
        return _spent(payer, rows, only)

    def spent_lately(self, payer: Payer, since: float, only: Collection[str] | None = None) -> dict[str, Spent]:
        with self._lock:
            rows = [row for row in self._usage.values() if row.ended_at >= since]
        return _spent(payer, rows, only)

    def used(self, asked: Asked) -> list[Used]:
        with self._lock:
            rows = [row for row in self._usage_days.values() if _meant(row, asked)]
        return _sums(rows, asked, Used)

    def held(self, asked: Asked) -> list[Held]:
        kept = asked.of_capacity
        with self._lock:
            rows = [row for row in self._capacity.values() if _meant(row, kept)]
        return _sums(rows, kept, Held)

    def add_capacity(self, rows: Collection[CapacityDay], was: float, until: float) -> bool:
        with self._lock:
            if self._accounted.get("capacity", 0.0) != was:
                return False
            self._accounted["capacity"] = until
            for row in map(self._set_apart, rows):
                where = _place(row)
                known = self._capacity.get(where)
                self._capacity[where] = _added(known, row) if known else row
            return True

    def accounted_until(self) -> float:
        with self._lock:
            return self._accounted.get("capacity", 0.0)

    def instance_of(self, namespace: str, endpoint: str, revision: int) -> tuple[str, str] | None:
        with self._lock:
            rows = [
                row for row in self._capacity.values() if (row.namespace, row.endpoint, row.revision) == (namespace, endpoint, revision)
            ]
        newest = max(rows, key=lambda row: row.day, default=None)
        return None if newest is None else (newest.instance_type, newest.instance_size)

    def key_words(self, ids: Collection[str]) -> Mapping[str, tuple[str, str]]:
        with self._lock:
            return {
                identity: (self._keys[identity].namespace, self._keys[identity].description) for identity in ids if identity in self._keys
            }

    def _set_apart(self, row: R) -> R:
        """See `cluster.store.sql_usage`."""
        space = self._namespaces.get(row.namespace)
        former = self._former.get((row.namespace, row.endpoint), 0) if space is not None else 0
        return usage_sums.set_apart(row, former, space.created_at if space is not None else 0.0)

    def _keep_under(self, name: str, old: str, new: str) -> None:
        """Sums whose field `name` is `old` have it as `new` from now on."""
        days = [_renamed(row, name, old, new) for row in self._usage_days.values()]
        self._usage_days = {usage_sums.place_of(row): row for row in days}
        if name == "namespace":
            self._capacity = {_place(row): row for row in [_renamed(row, name, old, new) for row in self._capacity.values()]}


def _renamed(row: D, name: str, old: str, new: str) -> D:
    fields: dict[str, Any] = {name: new}
    return dataclasses.replace(row, **fields) if getattr(row, name) == old else row


def _place(row: CapacityDay) -> CapacityPlace:
    return (row.day, row.namespace, row.endpoint, row.revision, row.instance_type, row.instance_size)


def _spent(payer: Payer, rows: Iterable[UsageRow | UsageDay], only: Collection[str] | None) -> dict[str, Spent]:
    found: dict[str, Spent] = {}
    for row in rows:
        who = row.key if payer == "key" else f"{row.namespace}/{row.endpoint}"
        if who and (only is None or who in only):
            known = found.get(who, Spent())
            found[who] = Spent(known.tokens + row.prompt_tokens + row.completion_tokens, known.cost + row.cost)
    return found


def _meant(row: UsageDay | CapacityDay, asked: Asked) -> bool:
    wanted = ("namespace", "endpoint", "key", "model", "adapter", "tenant")
    fits = all(getattr(asked, name) in (None, getattr(row, name)) for name in wanted if hasattr(row, name))
    if asked.scope is not None:
        mine = bool(asked.scope.tenant) and getattr(row, "tenant", None) == asked.scope.tenant
        fits = fits and (mine or row.namespace in asked.scope.namespaces)
    return fits and row.revision >= asked.first_revision and asked.since <= row.day <= asked.until


def _sums(rows: Sequence[Any], asked: Asked, kind: type[Any]) -> list[Any]:
    found: dict[tuple[Any, ...], Any] = {} if asked.columns else {(): kind({})}
    for row in rows:
        where = tuple(getattr(row, name) for name in asked.columns)
        group = dict(zip(asked.columns, map(str, where), strict=True))
        found[where] = _added(found.get(where) or kind(group), row)
    ordered = [found[where] for where in sorted(found)]
    return ordered[asked.offset : asked.offset + asked.limit]


def _added(sums: Any, row: Any) -> Any:
    """The sums with the row's amounts: of the fields that are numbers, all but the revision."""
    amounts = [field.name for field in dataclasses.fields(sums) if field.type in ("int", "float") and field.name != "revision"]
    return dataclasses.replace(sums, **{name: getattr(sums, name) + getattr(row, name) for name in amounts})
