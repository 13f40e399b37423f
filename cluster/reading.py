"""The reconciler's copy of the store: whole at first, then only what was hinted at, and whole again when others wrote.

With a thousand endpoints a whole read costs tens of milliseconds; a change of one should cost one. Writers of this process
hint the endpoint, user or namespace they changed; other writers (`moorage up` makes keys) are noticed within LOOK_S.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from cluster import granting, plan, records
from cluster.keys import PLATFORM
from cluster.store.base import Store

T = TypeVar("T")

LOOK_S, REREAD_S = 10.0, 600.0
"""How often it is looked whether another process wrote, and how often all is read whatever that says."""
REST_SHARE = 50
"""Between two readings of everything: so many times as long as one takes."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Endpoints by id with their serving and target revisions, keys by whose they are, replicas by application, and who belongs where."""

    wanted: Mapping[str, plan.Wanted]
    keys: Mapping[str, tuple[records.Key, ...]]
    """By endpoint id, platform keys by `granting.of_user`."""
    replicas: Mapping[str, tuple[records.Replica, ...]]
    people: granting.Membership = dataclasses.field(default_factory=granting.Membership)


class Reader:
    """`read` may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._dirty: set[str] = set()
        self._dirty_lock = threading.Lock()
        self._seen = -1
        self._whole_at: float | None = None
        self._looked_at = 0.0
        self._rest_s = LOOK_S
        self._hinted_meanwhile: set[str] = set()
        self._mark: tuple[float, ...] = ()
        self._reading = Reading({}, {}, {})

    def hint(self, what: str) -> None:
        """The endpoint of this id, its revisions or its keys have changed; '' = anything.

        `granting.of_user` and `granting.of_namespace` make the hints for a user with its keys, and for a namespace.
        """
        with self._dirty_lock:
            self._dirty.add(what)

    def known(self, endpoint_id: str) -> plan.Wanted | None:
        """The endpoint as it was last read, without asking the store."""
        return self._reading.wanted.get(endpoint_id)

    def refresh(self, now: float) -> None:
        """Reads everything again when another process may have written. Long with many rows, but nobody who reads waits for it.

        `now` is in seconds, of whatever clock. One thread at a time may call this.
        """
        with self._lock:
            if not self._is_stale(now):
                return
            self._hinted_meanwhile.clear()
        mark, began = self._store.mark(), time.monotonic()
        whole = self._whole()
        with self._lock:
            self._reading, self._mark, self._whole_at, self._seen = whole, mark, now, -1
            self._rest_s = max(LOOK_S, REST_SHARE * (time.monotonic() - began))
            with self._dirty_lock:  # what was read one by one meanwhile may be newer than the whole
                self._dirty |= self._hinted_meanwhile

    def read(self) -> Reading:
        """The rows as they are."""
        with self._lock:
            changes = self._store.changes()
            with self._dirty_lock:
                dirty, self._dirty = self._dirty, set()
            if self._whole_at is None or "" in dirty:
                self._reading = self._whole()
                self._whole_at = self._whole_at or 0.0
            elif dirty or changes != self._seen:
                self._reading = self._some(self._reading, dirty)
            self._hinted_meanwhile |= dirty
            self._seen = changes
            return self._reading

    def _is_stale(self, now: float) -> bool:
        if self._whole_at is None or not 0 <= now - self._whole_at < REREAD_S:
            return True
        if 0 <= now - self._looked_at < self._rest_s:
            return False
        self._looked_at = now
        return self._store.mark() != self._mark

    def _whole(self) -> Reading:
        revisions: dict[str, dict[int, records.Revision]] = {}
        for revision in self._store.all_revisions():
            revisions.setdefault(revision.endpoint_id, {})[revision.number] = revision
        known = self._reading.wanted
        wanted = {row.id: _same(known.get(row.id), plan.Wanted(row, revisions.get(row.id, {}))) for row in self._store.endpoints()}
        listed: dict[str, list[records.Key]] = {}
        for key in self._store.keys(namespace=None):
            listed.setdefault(granting.of_user(key.owner) if key.kind == PLATFORM else key.endpoint_id or "", []).append(key)
        keys = {owner: _same(self._reading.keys.get(owner), tuple(rows)) for owner, rows in listed.items()}
        return Reading(wanted, keys, self._replicas(), self._everybody())

    def _some(self, old: Reading, dirty: set[str]) -> Reading:
        wanted, keys = dict(old.wanted), dict(old.keys)
        users, namespaces = _named(dirty, granting.of_user("")), _named(dirty, granting.of_namespace(""))
        for identity in dirty - {*map(granting.of_user, users), *map(granting.of_namespace, namespaces)}:
            row = self._store.endpoint_by_id(identity)
            if row is None:
                wanted.pop(identity, None)
                keys.pop(identity, None)
            else:
                revisions = {found.number: found for found in self._store.revisions(identity) if found.number in {row.serving, row.target}}
                wanted[identity] = plan.Wanted(row, revisions)
                keys[identity] = tuple(self._store.keys(endpoint_id=identity))
                namespaces |= {row.namespace} - old.people.namespaces.keys()
        for user in users:
            keys[granting.of_user(user)] = tuple(self._store.keys(owner=user, kind=PLATFORM))
        return Reading(wanted, keys, self._replicas(), self._some_people(old.people, users, namespaces))

    def _everybody(self) -> granting.Membership:
        old = self._reading.people
        namespaces = {row.name: _same(old.namespaces.get(row.name), row) for row in self._store.namespaces()}
        users = {row.name: _same(old.users.get(row.name), row) for row in self._store.users()}
        return granting.Membership(namespaces, users)

    def _some_people(self, old: granting.Membership, users: Collection[str], namespaces: Collection[str]) -> granting.Membership:
        """The same object where nothing of it was hinted."""
        if not users and not namespaces:
            return old
        return granting.Membership(
            _with(old.namespaces, {name: self._store.namespace(name) for name in namespaces}),
            _with(old.users, {name: self._store.user(name) for name in users}),
        )

    def _replicas(self) -> dict[str, tuple[records.Replica, ...]]:
        found: dict[str, tuple[records.Replica, ...]] = {}
        for replica in self._store.replicas():
            found[replica.application] = (*found.get(replica.application, ()), replica)
        return found


def _named(hints: Iterable[str], prefix: str) -> set[str]:
    return {hint.removeprefix(prefix) for hint in hints if hint.startswith(prefix)}


def _with(rows: Mapping[str, T], changes: Mapping[str, T | None]) -> Mapping[str, T]:
    """The same object where there are no changes; None = gone."""
    if not changes:
        return rows
    kept = {name: row for name, row in rows.items() if name not in changes}
    return kept | {name: row for name, row in changes.items() if row is not None}


def _same(old: T | None, new: T) -> T:
    """The object known before where it says the same: what was made from it need not be made again."""
    return old if old == new and old is not None else new
