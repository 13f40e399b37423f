"""The snapshot's rows, made anew only where something changed: with a thousand endpoints, a change of one costs one.

An endpoint of which nothing runs is what its rows in the store say; one of which something runs or is told is looked at each time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

from cluster import expiry, granting, observation, plan, publisher, reading, records, snapshot, state

log = logging.getLogger(__name__)
Compile = Callable[[plan.Wanted, reading.Reading, observation.Cluster], snapshot.Endpoint]
Changes = tuple[Mapping[str, snapshot.Endpoint | None], Mapping[str, snapshot.Key | None], Mapping[str, tuple[str, ...] | None]]
"""What is new by ns/name, by key digest and by grant; None = removed."""


class Rows:
    """Not thread-safe."""

    def __init__(self, compile_row: Compile, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the wall's: keys end by it."""
        self._compile = compile_row
        self._clock = clock
        self._items: dict[str, plan.Wanted] = {}
        self._endpoints: dict[str, snapshot.Endpoint] = {}
        """By endpoint id, like `_items` and `_applications`."""
        self._applications: dict[str, tuple[str, ...]] = {}
        self._owners: dict[str, str] = {}
        """Application -> endpoint id."""
        self._live: set[str] = set()
        """Endpoints of which something ran or was told when last looked."""
        self._key_rows: dict[str, tuple[records.Key, ...]] = {}
        self._keys: dict[str, dict[str, snapshot.Key]] = {}
        """By whose keys they are, as in `reading.Reading`."""
        self._grants = granting.Grants()
        self._calendar = expiry.Calendar()
        self._ended: dict[str, records.Key] = {}

    def changes(self, rows: reading.Reading, observed: observation.Cluster, live: Collection[str]) -> Changes:
        """What changed since the last call; `live` names the applications of which something runs or is told."""
        gone = [identity for identity in self._items if identity not in rows.wanted]
        new = {identity for identity, item in rows.wanted.items() if self._items.get(identity) is not item}
        changed = self._grants.changes(rows.people)
        if changed.namespaces:
            new |= {identity for identity, item in rows.wanted.items() if item.endpoint.namespace in changed.namespaces}
        endpoints: dict[str, snapshot.Endpoint | None] = {}
        for identity in gone:
            self._items.pop(identity)
            endpoints[self._endpoints.pop(identity).path] = None
            self._own(identity, ())
        for identity in new:
            endpoint = rows.wanted[identity].endpoint
            applications = {state.application_of(endpoint, number) for number in {endpoint.target, endpoint.serving or endpoint.target}}
            self._own(identity, tuple(applications))
        running = {self._owners[name] for name in live if name in self._owners}
        for identity in (new | running | self._live) & (self._items.keys() | new):
            item = rows.wanted[identity]
            try:
                row = self._compile(item, rows, observed)
            except Exception:  # whatever is wrong with one endpoint must not keep the others' news from the gateways
                log.exception("what the gateways are told of %s stays as it was; the next change tries again", item.endpoint.path)
                continue
            self._items[identity] = item
            if identity not in running:
                item.endpoint.forget_parsed()
            known = self._endpoints.get(identity)
            if known != row:
                if known is not None and known.path != row.path:
                    endpoints[known.path] = None
                endpoints[row.path] = self._endpoints[identity] = row
        self._live = running
        owners = {*gone, *new, *map(granting.of_user, changed.users)}
        return endpoints, self._key_changes(rows, owners), changed.grants

    def ended(self) -> list[records.Key]:
        """Keys whose time is over and whose rows do not say so yet."""
        return list(self._ended.values())

    def _own(self, identity: str, applications: tuple[str, ...]) -> None:
        for name in self._applications.pop(identity, ()):
            self._owners.pop(name, None)
        if applications:
            self._applications[identity] = applications
            self._owners.update(dict.fromkeys(applications, identity))

    def _key_changes(self, rows: reading.Reading, owners: Collection[str]) -> dict[str, snapshot.Key | None]:
        """Of those whose keys are other rows than before, of `owners`, who came, went or were changed, and of keys that ended."""
        now = self._clock()
        found: dict[str, snapshot.Key | None] = {}
        others = {owner for owner, keys in rows.keys.items() if self._key_rows.get(owner) is not keys}
        for owner in others | {*owners} | self._calendar.due(now) | (self._key_rows.keys() - rows.keys.keys()):
            keys = rows.keys.get(owner, ())
            paths = {owner: self._endpoints[owner].path} if owner in self._endpoints else {}
            usable = publisher.compile_keys(keys, paths, rows.people, now)
            before = self._keys.get(owner, {})
            found.update((digest, None) for digest in before if digest not in usable)
            found.update((digest, row) for digest, row in usable.items() if before.get(digest) != row)
            self._note_ends(owner, keys, now)
            self._key_rows[owner], self._keys[owner] = keys, usable
            if not keys:
                del self._key_rows[owner], self._keys[owner]
        return found

    def _note_ends(self, owner: str, keys: tuple[records.Key, ...], now: float) -> None:
        self._calendar.note(owner, keys, now)
        for key in self._key_rows.get(owner, ()):
            self._ended.pop(key.id, None)
        self._ended.update((key.id, key) for key in keys if key.status == "active" and expiry.status(key, now) == "expired")
