"""What was used, for those who may see it: sums of requests and of hardware, and how much is left of limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from cluster import ledger, records, roles, windows
from cluster.actor import Actor
from cluster.limits import Limits
from cluster.store.base import Store
from cluster.store.usage_store import Payer
from cluster.usage_records import Asked, Held, Scope, Spent, Used

AT_ONCE = 5000
"""Groups that are read at once for an answer of any length."""


@dataclasses.dataclass(frozen=True)
class Capacity:
    """A group's hardware, with the part of it that requests used: at most what was ready."""

    held: Held
    busy_s: float

    @property
    def replica_s(self) -> float:
        """Of all replicas together, ready or starting."""
        return self.held.ready_s + self.held.starting_s

    @property
    def idle_s(self) -> float:
        """Ready with nothing to do."""
        return self.held.ready_s - self.busy_s

    @property
    def cost(self) -> float:
        """By the plan of its time."""
        return self.held.hourly_cost + self.held.committed_cost

    def share(self, seconds: float) -> float:
        """Of all its time, from 0 to 1."""
        return seconds / self.replica_s if self.replica_s else 0.0


@dataclasses.dataclass(frozen=True)
class Limit:
    """One limit. `used` None: HAProxy counts it; `resets` in Unix seconds, 0 = it does not."""

    name: str
    most: float
    used: float | None = None
    resets: float = 0.0


class Reports:
    """Answers about usage; reads the store and changes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def used(self, asked: Asked) -> list[Used]:
        """Requests by group; at most `asked.limit`."""
        return self._store.used(asked)

    def all_used(self, asked: Asked) -> Iterator[Used]:
        """Every group, read in parts."""
        while True:
            part = self._store.used(dataclasses.replace(asked, limit=AT_ONCE))
            yield from part
            if not asked.by or len(part) < AT_ONCE:
                return
            asked = dataclasses.replace(asked, offset=asked.offset + AT_ONCE)

    def capacity(self, asked: Asked) -> list[Capacity] | None:
        """Hardware by group; None when only some of the requests are asked for, which cannot be told apart in it."""
        if any(value is not None for value in (asked.key, asked.model, asked.adapter, asked.tenant)):
            return None
        # The keys of a tenant that call others' endpoints hold no hardware there.
        scope = Scope(asked.scope.namespaces) if asked.scope is not None else None
        wanted = dataclasses.replace(asked.of_capacity, scope=scope, offset=0)
        held = self._store.held(wanted)
        busy = {tuple(one.group.values()): one.share_s for one in self._store.used(wanted)}
        return [Capacity(one, min(one.ready_s, busy.get(tuple(one.group.values()), 0.0))) for one in held]

    def descriptions(self, actor: Actor, ids: Sequence[str]) -> Mapping[str, str]:
        """Of those keys that are the actor's to see."""
        words = self._store.key_words(sorted({identity for identity in ids if identity}))
        return {identity: text for identity, (namespace, text) in words.items() if actor.operator or namespace in actor.namespaces}

    def limits(self, payer: Payer, limited: Mapping[str, Limits | records.Key], now: float) -> dict[str, list[Limit]]:
        """How much each of these keys (by id) or endpoints (by path) has used of its limits; those without limits have none."""
        rules = {name: ledger.rules_of(row) for name, row in limited.items()}
        spent: dict[windows.Kind, Mapping[str, Spent]] = {}
        for window in {rule.window for mine in rules.values() for rule in mine}:
            spent[window] = ledger.used_in(self._store, window, payer, list(limited), now)[1]
        return {
            name: [
                *(Limit(word, most) for word, most in _at_the_edge(row) if most),
                *(
                    Limit(rule.name, rule.most, rule.of(spent[rule.window].get(name, Spent())), windows.end(rule.window, now))
                    for rule in rules[name]
                ),
            ]
            for name, row in limited.items()
        }

    def limits_of_endpoint(self, endpoint: records.Endpoint, now: float) -> tuple[list[Limit], list[tuple[records.Key, list[Limit]]]]:
        """The endpoint's own, and those of its usable keys that have any."""
        own = self.limits("endpoint", {endpoint.path: endpoint.parsed.limits}, now)[endpoint.path]
        return own, self._of_keys(self._store.keys(endpoint_id=endpoint.id), now)

    def limits_of_platform_keys(self, actor: Actor, now: float) -> list[tuple[records.Key, list[Limit]]]:
        """Those of the actor, or of its whole namespace for one who administers it."""
        rows = self._store.keys(namespace=actor.namespace, kind="p")
        everyone = roles.rank(actor.role) >= roles.rank(roles.ADMIN)
        return self._of_keys([row for row in rows if everyone or row.owner == actor.name], now)

    def _of_keys(self, rows: Sequence[records.Key], now: float) -> list[tuple[records.Key, list[Limit]]]:
        usable = {row.id: row for row in rows if row.status == "active"}
        found = self.limits("key", dict(usable), now)
        return [(row, found[identity]) for identity, row in usable.items() if found[identity]]


def scope_of(actor: Actor) -> Scope | None:
    """Whose use an actor may see: an operator everybody's; an admin also that of its tenant's keys at others' endpoints."""
    if actor.operator:
        return None
    return Scope(actor.namespaces, actor.tenant if roles.rank(actor.role) >= roles.rank(roles.ADMIN) else "")


def _at_the_edge(row: Limits | records.Key) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("requestsPerMinute", row.requests_per_minute), ("concurrency", row.concurrency)
