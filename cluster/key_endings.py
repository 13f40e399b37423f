"""The end of a key whose time is over: its row says so, and its endpoint has an event of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster import errors, expiry, granting, records
from cluster.store.base import Store


def end_all(store: Store, keys: Iterable[records.Key], now: float, hint: Callable[[str], None]) -> None:
    """`hint` is told whose keys are other ones now."""
    for key in keys:
        if end(store, key, now):
            hint(key.endpoint_id or granting.of_user(key.owner))


def end(store: Store, key: records.Key, now: float) -> bool:
    """False where the key was revoked, is gone, or was given more time since it was read."""
    with store.together():
        try:
            row = store.key(key.id)
        except errors.NotFound:
            return False
        if row.status != "active" or expiry.status(row, now) != "expired":
            return False
        store.update_key(row.id, {"status": "expired", "updated_at": now})
        if row.endpoint_id is not None:
            text = f"Key {row.id} has expired" + (f"; it was replaced by {row.replaced_by}." if row.replaced_by else ".")
            store.add_events([records.Event(row.endpoint_id, row.expires_at or now, "key_expired", text)])
        return True
