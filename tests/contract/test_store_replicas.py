"""What every store promises of announced replicas."""

from __future__ import annotations

import dataclasses

from support.store_rows import replica

from cluster import records
from cluster.store import Store


def test_a_replica_is_stored_and_says_whether_anything_changed(store: Store, created: records.Endpoint) -> None:
    assert store.replicas() == [replica()]
    assert store.put_replica(replica(announced_at=9.0)) is False
    assert store.replicas() == [replica(announced_at=9.0)]
    moved = dataclasses.replace(replica(), port=4712, announced_at=9.0)
    assert store.put_replica(moved) is True
    assert store.put_replica(replica("r-0", "not yet there")) is True
    assert store.replicas() == [replica("r-0", "not yet there"), moved]


def test_removed_replicas_are_forgotten_and_unknown_ones_ignored(store: Store, created: records.Endpoint) -> None:
    store.put_replica(replica("r-2"))
    store.remove_replicas({"r-1", "unknown"})
    store.remove_replicas([])
    assert store.replicas() == [replica("r-2")]
