"""The commands on API keys: minted once, shown once, stored as digests; they end by their expiry, or are revoked for good."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from cluster import errors, expiry, keys, limits, records, rotation
from cluster.actor import Actor
from cluster.store.base import Store


class NewKey(limits.Limits, expiry.Expiring):
    """What a user says of a new key. Limits of 0 are none; without an expiry it is good until it is revoked."""

    description: str = Field("", max_length=500)


class EditedKey(NewKey):
    """What may be changed of a key: what is given, the rest stays. `expiresAt` null = never."""


class KeyControl:
    """Keys of endpoints (platform keys are `cluster.platform_keys`'). Finds a key by its id or by the key itself."""

    def __init__(self, *, store: Store, hint: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._hint = hint
        self._clock = clock

    def of_endpoint(self, endpoint: records.Endpoint) -> list[records.Key]:
        """All keys of an endpoint, those that ended too, oldest first."""
        return self._store.keys(endpoint_id=endpoint.id)

    def status(self, key: records.Key) -> str:
        """`active`, `revoked` or `expired`, as of now."""
        return expiry.status(key, self._clock())

    def add(self, actor: Actor, new: NewKey, endpoint: records.Endpoint) -> tuple[records.Key, str]:
        """A new key of an endpoint, with the only copy of its text.

        Raises InvalidRequest for an expiry that has passed.
        """
        minted, now = keys.mint(keys.ENDPOINT), self._clock()
        row = records.Key(
            id=minted.id,
            digest=minted.digest,
            kind=keys.ENDPOINT,
            namespace=endpoint.namespace,
            description=new.description,
            endpoint_id=endpoint.id,
            owner=actor.name,
            created_at=now,
            updated_at=now,
            expires_at=new.end(now),
            **{name: getattr(new, name) for name in limits.Limits.model_fields},
        )
        self._store.add_key(row)
        self._tell(endpoint, "key_added", f"Key {row.id} added by {actor.name}.")
        return row, minted.key

    def get(self, name: str, endpoint: records.Endpoint) -> records.Key:
        """By id or by the key's own text. Raises NotFound for a key of something else."""
        identity = keys.key_id(name) or name
        row = self._find(identity) if identity.isascii() and identity.isalnum() else None
        if row is None or row.endpoint_id != endpoint.id or (keys.key_id(name) and keys.digest(name) != row.digest):
            raise errors.NotFound("There is no such key here.")
        return row

    def edit(self, actor: Actor, key: records.Key, edited: EditedKey, endpoint: records.Endpoint) -> records.Key:
        """Change what is given; a later expiry brings an expired key back. Raises Conflict on the First Key and on a revoked one."""
        if key.first:
            raise errors.Conflict("The First Key cannot be edited: add another key, and give that a description, limits and an expiry.")
        if key.status == "revoked":
            raise errors.Conflict(f"Key {key.id} is revoked for good: add another one.")
        now = self._clock()
        changes = {name: getattr(edited, name) for name in edited.model_fields_set - expiry.Expiring.model_fields.keys()}
        if edited.says_when:
            changes |= {"expires_at": edited.end(now), "status": "active"}
        if not changes:
            return key
        row = self._store.update_key(key.id, {**changes, "updated_at": now})
        self._tell(endpoint, "key_edited", f"Key {key.id} edited by {actor.name}: {', '.join(_wire_names(edited))}.")
        return row

    def rotate(self, actor: Actor, key: records.Key, wanted: rotation.Rotation, endpoint: records.Endpoint) -> tuple[records.Key, str]:
        """A new key in the place of `key`, which goes on for the overlap and then ends. With the only copy of the new one's text.

        Raises Conflict on the First Key, on a key that has ended, and on one that was replaced already.
        """
        if key.first:
            raise errors.Conflict("The First Key cannot be rotated: add another key, and let its users take that one.")
        now = self._clock()
        row, text = rotation.replace(self._store, key, wanted, now, owner=actor.name, expires=_lived_again(key, now))
        until = f"in {wanted.overlap_seconds} s" if wanted.overlap_seconds else "at once"
        self._tell(endpoint, "key_rotated", f"Key {key.id} replaced by {row.id} by {actor.name}; the old one ends {until}.")
        return row, text

    def revoke(self, actor: Actor, key: records.Key, endpoint: records.Endpoint) -> records.Key:
        """For good. The edge refuses it within a second and cuts its streams. Raises Conflict on the First Key."""
        if key.first:
            raise errors.Conflict("The First Key cannot be revoked: it goes with its endpoint.")
        if key.status == "revoked":
            return key
        row = self._store.update_key(key.id, {"status": "revoked", "updated_at": self._clock()})
        self._tell(endpoint, "key_revoked", f"Key {key.id} revoked by {actor.name}.")
        return row

    def _find(self, identity: str) -> records.Key | None:
        try:
            return self._store.key(identity)
        except errors.NotFound:
            return None

    def _tell(self, endpoint: records.Endpoint, kind: str, text: str) -> None:
        self._store.add_events([records.Event(endpoint.id, self._clock(), kind, text)])
        self._hint(endpoint.id)


def _lived_again(key: records.Key, now: float) -> float | None:
    """The end of a key that is to live as long as `key` was to."""
    return None if key.expires_at is None else min(now + key.expires_at - key.created_at, expiry.LATEST)


def _wire_names(edited: EditedKey) -> list[str]:
    return sorted(EditedKey.model_fields[name].alias or name for name in edited.model_fields_set)
