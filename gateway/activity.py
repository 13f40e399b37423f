"""Who uses what, from HAProxy's counters: what runs now, and what was finished since the manager was last told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gateway import members


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """A row of a counting table: requests that run now, and all there were since the row was made."""

    running: int
    total: int


class Activity:
    """Fed with whole tables, again and again; a row that has vanished and come back counts from its beginning."""

    def __init__(self) -> None:
        self.active: dict[str, int] = {}
        """ns/name -> requests running and waiting on its replicas, when last looked."""
        self.running: dict[str, dict[str, int]] = {}
        """ns/name -> server -> requests that it is working on; the others of `active` wait for one."""
        self._requests: dict[str, tuple[int, float]] = {}
        self._keys: dict[str, float] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def see(self, endpoints: Mapping[str, Mapping[str, Count]], keys: Mapping[str, Mapping[str, Count]], at: float) -> None:
        """The tables by HAProxy worker, then by slot (ns/name, or ns/name:member) or key id, read at `at` (Unix seconds)."""
        seen: dict[tuple[str, str], int] = {}
        self.active = {}
        for worker, rows in endpoints.items():
            for slot, count in rows.items():
                path = members.base(slot)
                if count.running:
                    self.active[path] = self.active.get(path, 0) + count.running
                if new := self._new(worker, slot, count, seen):
                    self._add(path, new, at)
        for worker, rows in keys.items():
            for key, count in rows.items():
                if self._new(worker, key, count, seen) or count.running:
                    self._keys[key] = at
        self._seen = seen

    def see_servers(self, workers: Iterable[Mapping[str, Mapping[str, int]]], assigned: Mapping[str, str]) -> None:
        """What servers work on, by slot and server, of each HAProxy worker; `assigned`: ns/name, or ns/name:member -> slot."""
        paths = {slot: members.base(path) for path, slot in assigned.items()}
        self.running = {}
        for slots in workers:
            for slot, servers in slots.items():
                for server, count in servers.items():
                    if slot in paths and count:
                        rows = self.running.setdefault(paths[slot], {})
                        rows[server] = rows.get(server, 0) + count

    def take(self) -> tuple[dict[str, tuple[int, float]], dict[str, float]]:
        """(ns/name -> (requests, time of the last look that found one), key id -> last seen in use) since the last call."""
        requests, self._requests = self._requests, {}
        used, self._keys = self._keys, {}
        return requests, used

    def give_back(self, requests: Mapping[str, tuple[int, float]], used: Mapping[str, float]) -> None:
        """Counts again what could not be delivered."""
        for path, (count, at) in requests.items():
            self._add(path, count, at)
        for key, at in used.items():
            self._keys[key] = max(at, self._keys.get(key, 0.0))

    def _new(self, worker: str, name: str, count: Count, seen: dict[tuple[str, str], int]) -> int:
        before = self._seen.get((worker, name), 0)
        seen[worker, name] = count.total
        return count.total - before if count.total >= before else count.total

    def _add(self, path: str, count: int, at: float) -> None:
        before, last = self._requests.get(path, (0, 0.0))
        self._requests[path] = (before + count, max(last, at))
