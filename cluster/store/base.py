"""The Store port: everything the control plane remembers. Every method is one transaction, durable when it
returns and undone when it raises; none spans a network call.

Two implementations keep one contract (tests/contract/test_store_*.py): `cluster.store.sql` (SQLite or PostgreSQL) and
`cluster.store.memory`, the twin. Any method may raise Unavailable: the database does not answer, or stayed locked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from cluster import records
from cluster.store.audit_store import AuditStore
from cluster.store.model_store import ModelStore
from cluster.store.secret_store import SecretStore
from cluster.store.tenant_store import TenantStore
from cluster.store.usage_store import UsageStore

EVENTS_KEPT = 2000
"""The newest events of each endpoint that are kept."""
ANSWER_LIFETIME_S = 24 * 3600.0
"""How long the answer to an Idempotency-Key is kept at least."""


class Store(AuditStore, ModelStore, SecretStore, TenantStore, UsageStore, Protocol):
    """All methods may be called from any thread."""

    def migrate(self) -> None:
        """Bring the schema up to date; a no-op when it is. Managers that start together wait for each other.

        Raises Conflict when a newer version of Moorage has written the schema.
        """

    def close(self) -> None:
        """Give connections back."""

    def changes(self) -> int:
        """Counts writes through this store to endpoints, revisions, keys, replicas, namespaces or users: unchanged means a cached
        read is still true.

        What is noted all the time does not count: when keys were last used, `announced_at` of a replica. Take the count
        before the read it is to stand for.
        """

    def mark(self) -> tuple[float, ...]:
        """Differs after another process has added, changed or removed an endpoint, a key, a user or a namespace.

        Costs four small queries.
        """

    # Endpoints and revisions

    def create_endpoint(
        self,
        endpoint: records.Endpoint,
        fields: Mapping[str, Any],
        key: records.Key | None,
        secrets: Mapping[str, str],
        events: Iterable[records.Event] = (),
    ) -> records.Endpoint:
        """Store a new endpoint with its first revision (`fields`), First Key and (encrypted) secrets.

        The revision number is one more than any ever used for this namespace and name, deleted endpoints included; the
        returned row has it as `target` and `first_revision`. Raises AlreadyExists when the name is taken in the namespace, or
        the key's id or digest exists.
        """

    def endpoint(self, namespace: str, name: str) -> records.Endpoint:
        """By namespace and name, or else id. Raises NotFound."""

    def endpoint_by_id(self, endpoint_id: str) -> records.Endpoint | None:
        """Of whatever namespace, or None when it is gone."""

    def endpoints(self, namespace: str | None = None) -> list[records.Endpoint]:
        """All, or those of one namespace, ordered by namespace and name."""

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
        """Change columns (`records.Endpoint` field names) and count the generation up, in one transaction.

        `fields` adds a revision, which becomes `target`; `secrets` replaces all secrets; `expected` is the generation the
        caller read. Raises StaleGeneration when it has changed since, NotFound when the endpoint is gone.
        """

    def note_endpoint(self, endpoint_id: str, changes: Mapping[str, Any], events: Iterable[records.Event] = ()) -> None:
        """Record observations (`serving`, `awake`, `last_request_at`, `load_seconds`) without counting the generation.

        Silently does nothing when the endpoint is gone.
        """

    def delete_endpoint(self, endpoint_id: str, *, expected: int | None = None) -> None:
        """Forget the endpoint, its revisions, keys, secrets, replicas and events; its revision numbers are not used again.

        Raises StaleGeneration when it has changed since generation `expected`, NotFound when it is gone already.
        """

    def revisions(self, endpoint_id: str) -> list[records.Revision]:
        """Ordered by number."""

    def all_revisions(self) -> list[records.Revision]:
        """Of all endpoints: only those that are some endpoint's `serving` or `target`."""

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
        """Record success or failure of a revision; `clear` forgets an earlier failure first (retry).

        The first `live_at` stays; `reason` and `message` belong to `failed_at` and are stored with it. Silently does
        nothing when the revision is gone.
        """

    def secrets(self, endpoint_id: str) -> dict[str, str]:
        """Encrypted values by name."""

    # Keys

    def add_key(self, key: records.Key) -> None:
        """Raises AlreadyExists on an equal id or digest, NotFound when its endpoint is gone."""

    def key(self, key_id: str) -> records.Key:
        """Raises NotFound."""

    def key_by_digest(self, digest: str) -> records.Key | None:
        """Active or revoked, or None."""

    def keys(
        self, *, endpoint_id: str | None = None, namespace: str | None = None, kind: str | None = None, owner: str | None = None
    ) -> list[records.Key]:
        """Those that match, oldest first."""

    def update_key(self, key_id: str, changes: Mapping[str, Any]) -> records.Key:
        """Change `description`, `status`, limits, `expires_at`, `replaced_by`, `updated_at`. Raises NotFound."""

    def note_keys_used(self, used: Mapping[str, float]) -> None:
        """key id -> time of its last use; never moves backwards; does not count as a change."""

    # Replicas

    def put_replica(self, replica: records.Replica) -> bool:
        """Insert or replace; True when that changed anything but `announced_at`. Its endpoint need not be stored (yet)."""

    def replicas(self) -> list[records.Replica]:
        """All announced ones, by id."""

    def remove_replicas(self, ids: Collection[str]) -> None:
        """Forget them; unknown ids are ignored."""

    # Events

    def add_events(self, events: Iterable[records.Event]) -> None:
        """Append, and drop all but the newest EVENTS_KEPT of each endpoint; events of endpoints that are gone are dropped.

        Ids become visible in ascending order: who asks again with the last id as `after` misses none.
        """

    def events(self, endpoint_id: str, wanted: records.EventsWanted = records.EventsWanted(), *, limit: int = 200) -> list[records.Event]:
        """Ascending by id: of those that are wanted the NEWEST `limit`."""

    # Transactions, idempotency

    def together(self) -> AbstractContextManager[None]:
        """What this thread reads and writes inside is one transaction: all of it is kept, or none when the block raises.

        Inside another one it is part of that.
        """

    def from_first_write(self, began: Callable[[], None], ended: Callable[[], None]) -> AbstractContextManager[None]:
        """What this thread writes inside is one transaction, which begins at its first write: what is waited for before holds no lock.

        In that transaction `began`, which may only read, is called before the first write, and `ended` when the block has ended; both
        only if something is written (the twin calls `began` in any case). A write that raises is undone alone, and the block may go on.
        """

    def afterwards(self, act: Callable[[], None]) -> None:
        """Call `act` once this thread's transaction is durable, never when it is undone; at once when it is in none.

        For hints to others, who would not see yet what they are told to look at.
        """

    def remembered(self, scope: str, key: str) -> records.Remembered | None:
        """The stored answer for this Idempotency-Key."""

    def remember(self, answer: records.Remembered) -> None:
        """Store it; the first one stored for a scope and key stays. Answers ANSWER_LIFETIME_S older than it are pruned."""
