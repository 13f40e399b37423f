"""What every store promises of keys."""

from __future__ import annotations

import dataclasses

import pytest
from support.store_rows import key

from cluster import errors, records
from cluster.store import Store


def test_a_key_is_found_by_id_and_by_digest_even_when_revoked(store: Store, created: records.Endpoint) -> None:
    added = key("key-2", description="laptop", owner="ann", requests_per_minute=60, concurrency=4, created_at=1.5, last_used_at=2.5)
    store.add_key(added)
    assert store.key("key-2") == added == store.key_by_digest("digest of key-2")
    revoked = store.update_key("key-2", {"status": "revoked", "updated_at": 9.0})
    assert revoked == dataclasses.replace(added, status="revoked", updated_at=9.0)
    assert store.key("key-2") == revoked == store.key_by_digest("digest of key-2")


def test_unknown_keys_are_not_found(store: Store) -> None:
    assert store.key_by_digest("digest") is None
    with pytest.raises(errors.NotFound):
        store.key("key-1")
    with pytest.raises(errors.NotFound):
        store.update_key("key-1", {"description": "x"})


def test_an_equal_id_or_digest_is_refused(store: Store, created: records.Endpoint) -> None:
    for same in (key("key-1", digest="another"), key("key-2", digest="digest of key-1")):
        with pytest.raises(errors.AlreadyExists):
            store.add_key(same)
    assert store.keys() == [key(first=True)]


def test_a_key_for_an_endpoint_that_is_gone_is_refused(store: Store) -> None:
    with pytest.raises(errors.NotFound):
        store.add_key(key())
    assert store.keys() == []


def test_keys_are_listed_by_what_they_are_for_oldest_first(store: Store, created: records.Endpoint) -> None:
    store.add_key(records.Key("late", "d1", "p", "zeta", created_at=5.0))
    store.add_key(records.Key("early", "d2", "p", "acme", created_at=-1.0))
    store.add_key(records.Key("bb", "d3", "p", "zeta", created_at=3.0))
    store.add_key(records.Key("Bc", "d4", "p", "zeta", created_at=3.0))

    def ids(**wanted: str) -> list[str]:
        return [one.id for one in store.keys(**wanted)]

    assert ids() == ["early", "key-1", "Bc", "bb", "late"]
    assert ids(namespace="acme") == ["early", "key-1"]
    assert ids(kind="p") == ["early", "Bc", "bb", "late"]
    assert ids(namespace="acme", kind="p") == ["early"]
    assert ids(endpoint_id="ep-1") == ["key-1"]
    assert ids(endpoint_id="ep-1", kind="p") == []


def test_the_time_of_a_keys_last_use_never_moves_backwards(store: Store, created: records.Endpoint) -> None:
    store.add_key(key("key-2"))
    store.note_keys_used({"key-1": 5.0, "key-2": 6.0, "unknown": 7.0})
    store.note_keys_used({"key-1": 4.0, "key-2": 8.0})
    store.note_keys_used({})
    assert (store.key("key-1").last_used_at, store.key("key-2").last_used_at) == (5.0, 8.0)
