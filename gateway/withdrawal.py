"""Which running streams may not go on: their key was revoked, expired or may do less, or their endpoint is open to fewer.

Pure. `gateway.programmer` asks after changes that may have taken access away, and cuts what is found. A stream that was let in
before such a change may begin after it: therefore it asks again for a while.
"""

from __future__ import annotations

import dataclasses
import heapq
import ipaddress
from collections.abc import Collection, Iterable, Mapping

from cluster import snapshot
from gateway import access, members


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """A stream that runs: its key's id ('' = none), the endpoint's `ns/name` (a member's too), the client's `address:port`."""

    key: str
    path: str
    peer: str


def possible(before: snapshot.Snapshot | None, now: snapshot.Snapshot, changed_keys: Collection[str] | None) -> bool:
    """Whether `now` may allow less than `before`. None = not known."""
    if before is None or changed_keys is None:
        return True
    if any(_lessened(before.keys.get(digest), now.keys.get(digest)) for digest in changed_keys):
        return True
    if before.grants is not now.grants and any(set(rows) - set(now.grants.get(scope, ())) for scope, rows in before.grants.items()):
        return True
    return before.endpoints is not now.endpoints and any(
        row is not old and _closed(old, row) for path, row in now.endpoints.items() if (old := before.endpoints.get(path)) is not None
    )


def doomed(live: Iterable[Live], now: snapshot.Snapshot, at: float) -> set[str]:
    """The peers whose streams may not go on at `at` (Unix seconds). Those of an endpoint that is gone end with its replicas."""
    rows = list(live)
    ids = {row.key for row in rows}
    keys = {row.id: row for row in now.keys.values() if row.id in ids} if rows else {}
    return {row.peer for row in rows if not _may_go_on(row, keys, now, at)}


class Expiries:
    """When keys of the snapshot expire, so that nobody has to look through all of them each second."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def learn(self, now: snapshot.Snapshot, changed_keys: Collection[str] | None) -> None:
        """`changed_keys` None = all may have changed. A time that is not true any more costs a look for nothing."""
        if changed_keys is None:
            self._times = [row.expires_at for row in now.keys.values() if row.expires_at]
            heapq.heapify(self._times)
            return
        for digest in changed_keys:
            row = now.keys.get(digest)
            if row is not None and row.expires_at:
                heapq.heappush(self._times, row.expires_at)

    def passed(self, at: float) -> bool:
        """Whether a time has passed since this was asked before."""
        found = False
        while self._times and self._times[0] <= at:
            heapq.heappop(self._times)
            found = True
        return found


def _lessened(before: snapshot.Key | None, now: snapshot.Key | None) -> bool:
    return before is not None and (now is None or _powers(before) != _powers(now))


def _powers(row: snapshot.Key) -> tuple[object, ...]:
    return (access.Identity.of(row), row.expires_at)


def _closed(before: snapshot.Endpoint, now: snapshot.Endpoint) -> bool:
    return (before.type, before.networks, before.shared_with) != (now.type, now.networks, now.shared_with)


def _may_go_on(live: Live, keys: Mapping[str, snapshot.Key], now: snapshot.Snapshot, at: float) -> bool:
    row, key = now.endpoints.get(members.base(live.path)), keys.get(live.key)
    if live.key and (key is None or 0 < key.expires_at <= at):
        return False
    if row is None:
        return True
    identity = None if key is None else access.Identity.of(key)
    return access.may_call(identity, row, now.grants) and _from_allowed(live.peer, row)


def _from_allowed(peer: str, row: snapshot.Endpoint) -> bool:
    if row.type != snapshot.PRIVATE or not row.networks:
        return True
    address = ipaddress.ip_address(peer.rpartition(":")[0].strip("[]"))
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # what a socket for both calls a client of IPv4, as HAProxy's maps know
    return any(address in ipaddress.ip_network(text, strict=False) for text in row.networks)
