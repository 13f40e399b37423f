"""The Store in memory: the twin for tests and for trying things out. It forgets everything when the process ends."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from cluster import errors, records
from cluster.store.base import ANSWER_LIFETIME_S, EVENTS_KEPT
from cluster.store.memory_audit import MemoryAudit
from cluster.store.memory_models import MemoryModels
from cluster.store.memory_secrets import MemorySecrets
from cluster.store.memory_tenants import MemoryTenants
from cluster.store.memory_usage import MemoryUsage

P = ParamSpec("P")
T = TypeVar("T")


def _one_at_a_time(method: Callable[Concatenate[MemoryStore, P], T]) -> Callable[Concatenate[MemoryStore, P], T]:
    """Each method is one transaction: it checks everything before it changes anything, alone."""

    @functools.wraps(method)
    def alone(store: MemoryStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with store._lock:
            return method(store, *args, **kwargs)

    return alone


def _copied(rows: Any) -> Any:
    """A copy that later changes to `rows` do not reach; rows themselves are never changed, lists of them are."""
    found = rows.copy()
    if isinstance(found, dict):
        found.update({name: list(value) for name, value in found.items() if isinstance(value, list)})
    return found


class MemoryStore(MemoryAudit, MemoryModels, MemorySecrets, MemoryTenants, MemoryUsage):
    """Store of this process; see `cluster.store.base.Store` for what each method promises."""

    def __init__(self) -> None:
        MemoryAudit.__init__(self)
        MemoryModels.__init__(self)
        MemorySecrets.__init__(self)
        MemoryUsage.__init__(self)
        self._init_tenants()
        self._lock = threading.RLock()
        self._depth = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._changes = 0
        self._endpoints: dict[str, records.Endpoint] = {}
        self._last_revision: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._revisions: dict[tuple[str, int], records.Revision] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._keys: dict[str, records.Key] = {}
        self._replicas: dict[str, records.Replica] = {}
        self._events: defaultdict[str, list[records.Event]] = defaultdict(list)
        self._event_ids = itertools.count(1)
        self._answers: dict[tuple[str, str], records.Remembered] = {}

    def migrate(self) -> None:
        """There is no schema."""

    def close(self) -> None:
        """There is no connection."""

    @_one_at_a_time
    def changes(self) -> int:
        return self._changes

    @_one_at_a_time
    def mark(self) -> tuple[float, ...]:
        changed = [
            *([row.updated_at for row in rows] for rows in (self._endpoints.values(), self._keys.values(), self._users.values())),
            [row.created_at for row in self._namespaces.values()],
        ]
        return tuple(number for times in changed for number in (float(len(times)), max(times, default=0.0)))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._kept(), self._undone():
            yield

    @contextlib.contextmanager
    def from_first_write(self, began: Callable[[], None], ended: Callable[[], None]) -> Iterator[None]:
        """The twin cannot tell writes from reads beforehand: others wait from the beginning."""
        with self._kept(), self._undone() as before:
            began()
            yield
            if any(vars(self)[name] != value for name, value in before.items()):
                ended()

    def afterwards(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self._depth:
                self._waiting.append(act)
                return
        act()

    @contextlib.contextmanager
    def _undone(self) -> Iterator[dict[str, Any]]:
        """A block that changes nothing when it raises; gives what was before it."""
        before = {name: _copied(value) for name, value in vars(self).items() if isinstance(value, dict | set | list)}
        raised = True
        try:
            yield before
            raised = False
        finally:
            if raised:
                vars(self).update(before)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """The lock; when the outermost block has ended well, what waits for that is done."""
        with self._lock:
            self._depth += 1
            kept = False
            try:
                yield
                kept = True
            finally:
                self._depth -= 1
                done = [] if self._depth else [*self._waiting]
                if not self._depth:
                    self._waiting.clear()
        for act in done if kept else ():
            act()

    # Endpoints and revisions

    @_one_at_a_time
    def create_endpoint(
        self,
        endpoint: records.Endpoint,
        fields: Mapping[str, Any],
        key: records.Key | None,
        secrets: Mapping[str, str],
        events: Iterable[records.Event] = (),
    ) -> records.Endpoint:
        if endpoint.id in self._endpoints or any(one.path == endpoint.path for one in self._endpoints.values()):
            raise errors.AlreadyExists(f"There is an endpoint {endpoint.name!r} in namespace {endpoint.namespace!r} already.")
        stored = dataclasses.replace(endpoint, spec=_stored(endpoint.spec))
        if key is not None:
            self._refuse_taken(key)
            self._keys[key.id] = key
        self._secrets[endpoint.id] = dict(secrets)
        self._endpoints[endpoint.id] = self._add_revision(stored, fields, endpoint.created_at, endpoint.created_by)
        self._append(events)
        self._changes += 1
        return _read(self._endpoints[endpoint.id])

    @_one_at_a_time
    def endpoint(self, namespace: str, name: str) -> records.Endpoint:
        mine = [one for one in self._endpoints.values() if one.namespace == namespace]
        found = next((one for one in mine if one.name == name), None) or next((one for one in mine if one.id == name), None)
        if found is None:
            raise errors.NotFound(f"There is no endpoint {name!r} in namespace {namespace!r}.")
        return _read(found)

    @_one_at_a_time
    def endpoint_by_id(self, endpoint_id: str) -> records.Endpoint | None:
        found = self._endpoints.get(endpoint_id)
        return _read(found) if found else None

    @_one_at_a_time
    def endpoints(self, namespace: str | None = None) -> list[records.Endpoint]:
        found = [_read(one) for one in self._endpoints.values() if namespace in (None, one.namespace)]
        return sorted(found, key=lambda one: (one.namespace, one.name))

    @_one_at_a_time
    def update_endpoint(
        self,
        endpoint_id: str,
        changes: Mapping[str, Any],
        *,
        expected: int | None = None,
        fields: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        events: Iterable[records.Event] = (),
    ) -> records.Endpoint:
        before = self._unchanged(endpoint_id, expected)
        updated = dataclasses.replace(before, **_stored(changes), generation=before.generation + 1)
        if fields is not None:
            updated = self._add_revision(updated, fields, updated.updated_at, updated.updated_by)
        if secrets is not None:
            self._secrets[endpoint_id] = dict(secrets)
        self._endpoints[endpoint_id] = updated
        self._append(events)
        self._changes += 1
        return _read(updated)

    @_one_at_a_time
    def note_endpoint(self, endpoint_id: str, changes: Mapping[str, Any], events: Iterable[records.Event] = ()) -> None:
        if endpoint_id not in self._endpoints:
            return
        if changes:
            self._endpoints[endpoint_id] = dataclasses.replace(self._endpoints[endpoint_id], **_stored(changes))
            self._changes += 1
        self._append(events)

    @_one_at_a_time
    def delete_endpoint(self, endpoint_id: str, *, expected: int | None = None) -> None:
        self._unchanged(endpoint_id, expected)
        del self._endpoints[endpoint_id]
        self._secrets.pop(endpoint_id, None)
        self._events.pop(endpoint_id, None)
        self._revisions = {place: one for place, one in self._revisions.items() if one.endpoint_id != endpoint_id}
        self._keys = {key_id: one for key_id, one in self._keys.items() if one.endpoint_id != endpoint_id}
        self._replicas = {replica_id: one for replica_id, one in self._replicas.items() if one.endpoint_id != endpoint_id}
        self._changes += 1

    @_one_at_a_time
    def revisions(self, endpoint_id: str) -> list[records.Revision]:
        found = [one for one in self._revisions.values() if one.endpoint_id == endpoint_id]
        return [_read(one) for one in sorted(found, key=lambda one: one.number)]

    @_one_at_a_time
    def all_revisions(self) -> list[records.Revision]:
        wanted = {(one.id, number) for one in self._endpoints.values() for number in (one.serving, one.target) if number is not None}
        return [_read(self._revisions[place]) for place in sorted(wanted & self._revisions.keys())]

    @_one_at_a_time
    def mark_revision(
        self,
        endpoint_id: str,
        number: int,
        *,
        live_at: float | None = None,
        failed_at: float | None = None,
        reason: str = "",
        message: str = "",
        clear: bool = False,
    ) -> None:
        revision = self._revisions.get((endpoint_id, number))
        if revision is None or (live_at is None and failed_at is None and not clear):
            return
        if clear:
            revision = dataclasses.replace(revision, failed_at=None, reason="", message="")
        if live_at is not None and revision.live_at is None:
            revision = dataclasses.replace(revision, live_at=live_at)
        if failed_at is not None:
            revision = dataclasses.replace(revision, failed_at=failed_at, reason=reason, message=message)
        self._revisions[endpoint_id, number] = revision
        self._changes += 1

    @_one_at_a_time
    def secrets(self, endpoint_id: str) -> dict[str, str]:
        return dict(sorted(self._secrets.get(endpoint_id, {}).items()))

    # Keys

    @_one_at_a_time
    def add_key(self, key: records.Key) -> None:
        self._refuse_taken(key)
        if key.endpoint_id is not None and key.endpoint_id not in self._endpoints:
            raise errors.NotFound("The endpoint is gone.")
        self._keys[key.id] = key
        self._changes += 1

    @_one_at_a_time
    def key(self, key_id: str) -> records.Key:
        if key_id not in self._keys:
            raise errors.NotFound("There is no such key.")
        return self._keys[key_id]

    @_one_at_a_time
    def key_by_digest(self, digest: str) -> records.Key | None:
        return next((one for one in self._keys.values() if one.digest == digest), None)

    @_one_at_a_time
    def keys(
        self, *, endpoint_id: str | None = None, namespace: str | None = None, kind: str | None = None, owner: str | None = None
    ) -> list[records.Key]:
        found = [
            one
            for one in self._keys.values()
            if endpoint_id in (None, one.endpoint_id)
            and namespace in (None, one.namespace)
            and kind in (None, one.kind)
            and owner in (None, one.owner)
        ]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    @_one_at_a_time
    def update_key(self, key_id: str, changes: Mapping[str, Any]) -> records.Key:
        self._keys[key_id] = dataclasses.replace(self.key(key_id), **changes)
        self._changes += 1
        return self._keys[key_id]

    @_one_at_a_time
    def note_keys_used(self, used: Mapping[str, float]) -> None:
        for key_id, at in used.items():
            known = self._keys.get(key_id)
            if known is not None and (known.last_used_at is None or known.last_used_at < at):
                self._keys[key_id] = dataclasses.replace(known, last_used_at=at)

    # Replicas

    @_one_at_a_time
    def put_replica(self, replica: records.Replica) -> bool:
        before = self._replicas.get(replica.id)
        self._replicas[replica.id] = replica
        if before is not None and dataclasses.replace(before, announced_at=replica.announced_at) == replica:
            return False
        self._changes += 1
        return True

    @_one_at_a_time
    def replicas(self) -> list[records.Replica]:
        return [self._replicas[replica_id] for replica_id in sorted(self._replicas)]

    @_one_at_a_time
    def remove_replicas(self, ids: Collection[str]) -> None:
        removed = [self._replicas.pop(replica_id) for replica_id in set(ids) & self._replicas.keys()]
        if removed:
            self._changes += 1

    # Events

    @_one_at_a_time
    def add_events(self, events: Iterable[records.Event]) -> None:
        self._append(events)

    @_one_at_a_time
    def events(self, endpoint_id: str, wanted: records.EventsWanted = records.EventsWanted(), *, limit: int = 200) -> list[records.Event]:
        found = [one for one in self._events.get(endpoint_id, ()) if _is_wanted(one, wanted)]
        return [_read(one) for one in found[max(0, len(found) - limit) :]]

    # Idempotency

    @_one_at_a_time
    def remembered(self, scope: str, key: str) -> records.Remembered | None:
        return self._answers.get((scope, key))

    @_one_at_a_time
    def remember(self, answer: records.Remembered) -> None:
        oldest = answer.created_at - ANSWER_LIFETIME_S
        self._answers = {place: one for place, one in self._answers.items() if one.created_at >= oldest}
        self._answers.setdefault((answer.scope, answer.key), answer)

    # Parts of transactions

    def _unchanged(self, endpoint_id: str, expected: int | None) -> records.Endpoint:
        if endpoint_id not in self._endpoints:
            raise errors.NotFound("The endpoint is gone.")
        if expected not in (None, self._endpoints[endpoint_id].generation):
            raise errors.StaleGeneration()
        return self._endpoints[endpoint_id]

    def _add_revision(self, endpoint: records.Endpoint, fields: Mapping[str, Any], at: float, by: str) -> records.Endpoint:
        name = (endpoint.namespace, endpoint.name)
        number = self._last_revision[name] = self._last_revision[name] + 1
        self._revisions[endpoint.id, number] = records.Revision(endpoint.id, number, _stored(fields), created_at=at, created_by=by)
        return dataclasses.replace(endpoint, target=number, first_revision=endpoint.first_revision or number)

    def _refuse_taken(self, key: records.Key) -> None:
        if key.id in self._keys or self.key_by_digest(key.digest) is not None:
            raise errors.AlreadyExists("There is such a key already.")

    def _append(self, events: Iterable[records.Event]) -> None:
        for event in events:
            if event.endpoint_id not in self._endpoints:
                continue
            kept = self._events[event.endpoint_id]
            kept.append(dataclasses.replace(event, id=next(self._event_ids), data=_stored(event.data)))
            del kept[: max(0, len(kept) - EVENTS_KEPT)]


def _stored(value: Mapping[str, Any]) -> Any:
    """A copy, in the types that JSON has: what the caller later does to the original does not reach the store."""
    return json.loads(json.dumps(value))


def _read(record: T) -> T:
    """A copy for the reader, for the same reason."""
    open_fields = {name: _stored(value) for name, value in vars(record).items() if isinstance(value, dict)}
    return dataclasses.replace(record, **open_fields)  # type: ignore[type-var]  # every record is a dataclass


def _is_wanted(event: records.Event, wanted: records.EventsWanted) -> bool:
    pairs = ((wanted.level, event.level), (wanted.kind, event.kind), (wanted.replica, event.replica))
    return (
        all(asked in (None, has) for asked, has in pairs)
        and wanted.after < event.id
        and (wanted.before is None or event.id < wanted.before)
        and wanted.since <= event.at
        and (wanted.until is None or event.at <= wanted.until)
        and (wanted.text is None or wanted.text.lower() in event.message.lower())
    )
