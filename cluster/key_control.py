"""The commands on API keys: minted once, shown once, stored as digests, revoked for good."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydantic import Field

from cluster import errors, keys, records
from cluster.actor import Actor
from cluster.resource import Resource
from cluster.store.base import Store


class NewKey(Resource):
    """What a user says of a new key. Limits of 0 are none."""

    description: str = Field("", max_length=500)
    requests_per_minute: int = Field(0, ge=0, le=1_000_000)
    concurrency: int = Field(0, ge=0, le=100_000)


class EditedKey(Resource):
    """What may be changed of a key."""

    description: str = Field(max_length=500)


class KeyControl:
    """Keys of endpoints (platform keys are `cluster.platform_keys`'). Finds a key by its id or by the key itself."""

    def __init__(self, *, store: Store, hint: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._hint = hint
        self._clock = clock

    def of_endpoint(self, endpoint: records.Endpoint) -> list[records.Key]:
        """All keys of an endpoint, revoked ones too, oldest first."""
        return self._store.keys(endpoint_id=endpoint.id)

    def add(self, actor: Actor, new: NewKey, endpoint: records.Endpoint) -> tuple[records.Key, str]:
        """A new key of an endpoint; with the only copy of its text."""
        minted, now = keys.mint(keys.ENDPOINT), self._clock()
        row = records.Key(
            id=minted.id,
            digest=minted.digest,
            kind=keys.ENDPOINT,
            namespace=endpoint.namespace,
            description=new.description,
            endpoint_id=endpoint.id,
            owner=actor.name,
            requests_per_minute=new.requests_per_minute,
            concurrency=new.concurrency,
            created_at=now,
            updated_at=now,
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
        """Change the description. Raises Conflict on the First Key."""
        if key.first:
            raise errors.Conflict("The First Key cannot be edited.")
        row = self._store.update_key(key.id, {"description": edited.description, "updated_at": self._clock()})
        self._tell(endpoint, "key_edited", f"Key {key.id} described anew by {actor.name}.")
        return row

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
