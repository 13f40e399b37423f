"""How a key of either kind is replaced: by one that may do the same, beside which it works for a while.

Who may replace which key, and who is told, is decided by `cluster.key_control` and `cluster.platform_keys`.
"""

from __future__ import annotations

import dataclasses

from pydantic import Field

from cluster import errors, expiry, keys, records
from cluster.store.base import Store

OVERLAP_S, LONGEST_OVERLAP_S = 3600, 90 * 86_400


class Rotation(expiry.Expiring):
    """How a key is replaced. Without an expiry an endpoint's new key lives as long as the old one was to, a platform key's ends with it."""

    overlap_seconds: int = Field(OVERLAP_S, ge=0, le=LONGEST_OVERLAP_S)
    """How long the old key goes on working beside the new one; 0 = it ends at once."""


def replace(
    store: Store, key: records.Key, rotation: Rotation, now: float, *, owner: str, expires: float | None
) -> tuple[records.Key, str]:
    """The new key, with the only copy of its text; `expires` is its end where the rotation says none.

    Raises Conflict for a key that has ended, or was replaced already, and InvalidRequest for an expiry that has passed.
    """
    minted = keys.mint(key.kind)
    with store.together():
        old = store.key(key.id)
        _check(old, now)
        row = dataclasses.replace(
            old,
            id=minted.id,
            digest=minted.digest,
            owner=owner,
            created_at=now,
            updated_at=now,
            last_used_at=None,
            expires_at=rotation.end(now) if rotation.says_when else expires,
        )
        store.add_key(row)
        ends = min(now + rotation.overlap_seconds, old.expires_at or expiry.LATEST)
        status = "active" if rotation.overlap_seconds else "expired"
        store.update_key(old.id, {"expires_at": ends, "status": status, "replaced_by": row.id, "updated_at": now})
    return row, minted.key


def _check(key: records.Key, now: float) -> None:
    if key.replaced_by:
        raise errors.Conflict(f"Key {key.id} was replaced by {key.replaced_by}: rotate that one.")
    if (status := expiry.status(key, now)) != "active":
        raise errors.Conflict(f"Key {key.id} is {status}: add a new key instead.")
