"""Which writes every store counts, so that its readers know when what they cached is untrue."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.store_rows import FIELDS, endpoint, event, key, replica

from cluster import records
from cluster.store import Store

COUNTED: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create_endpoint(endpoint("ep-2", "other"), FIELDS, None, {}),
    "update": lambda store: store.update_endpoint("ep-1", {}),
    "note": lambda store: store.note_endpoint("ep-1", {"awake": False}),
    "delete": lambda store: store.delete_endpoint("ep-1"),
    "mark": lambda store: store.mark_revision("ep-1", 1, live_at=1.0),
    "clear": lambda store: store.mark_revision("ep-1", 1, clear=True),
    "add key": lambda store: store.add_key(key("key-2")),
    "update key": lambda store: store.update_key("key-1", {"status": "revoked"}),
    "add user": lambda store: store.add_user(records.User("bob", "home", "home")),
    "update user": lambda store: store.update_user("ann", {"active": False, "updated_at": 7.0}),
    "delete user": lambda store: store.delete_user("ann", 7.0),
    "create namespace": lambda store: store.create_namespace(records.Namespace("lab", "home", created_at=7.0)),
    "delete namespace": lambda store: store.delete_namespace("empty"),
    "put replica": lambda store: store.put_replica(replica("r-2")),
    "namespace": lambda store: store.add_namespace("acme"),
    "remove replica": lambda store: store.remove_replicas(["r-1"]),
}


@pytest.fixture(autouse=True)
def people(store: Store) -> None:
    """A user at home in a namespace, and one that is empty."""
    store.add_namespace("home")
    store.add_namespace("empty")
    store.add_user(records.User("ann", "home", "home"))


UNCOUNTED: dict[str, Callable[[Store], object]] = {
    "note of one gone": lambda store: store.note_endpoint("gone", {"awake": False}),
    "note of events only": lambda store: store.note_endpoint("ep-1", {}, [event()]),
    "mark of one gone": lambda store: store.mark_revision("gone", 1, live_at=1.0),
    "key used": lambda store: store.note_keys_used({"key-1": 5.0}),
    "same replica": lambda store: store.put_replica(replica(announced_at=5.0)),
    "unknown replica": lambda store: store.remove_replicas(["unknown"]),
    "events": lambda store: store.add_events([event()]),
    "known namespace": lambda store: store.add_namespace("home"),
    "answer": lambda store: store.remember(records.Remembered("a", "b", "c", 1, "", 1.0)),
    "read": lambda store: (store.endpoints(), store.keys(), store.replicas(), store.all_revisions()),
}


@pytest.mark.parametrize("write", COUNTED.values(), ids=COUNTED.keys())
def test_a_write_that_makes_cached_reads_untrue_is_counted(
    store: Store, created: records.Endpoint, write: Callable[[Store], object]
) -> None:
    before = store.changes()
    write(store)
    assert store.changes() == before + 1


@pytest.mark.parametrize("write", UNCOUNTED.values(), ids=UNCOUNTED.keys())
def test_a_write_that_leaves_cached_reads_true_is_not_counted(
    store: Store, created: records.Endpoint, write: Callable[[Store], object]
) -> None:
    before = store.changes()
    write(store)
    assert store.changes() == before


PEOPLE = ("add user", "update user", "delete user", "create namespace", "delete namespace")
MARKED = {name: COUNTED[name] for name in ("create", "delete", "add key", "update key", *PEOPLE)}


@pytest.mark.parametrize("write", MARKED.values(), ids=MARKED)
def test_what_another_process_writes_of_endpoints_keys_users_and_namespaces_changes_the_mark(
    store: Store, created: records.Endpoint, write: Callable[[Store], object]
) -> None:
    if write is COUNTED["update key"]:
        write = lambda one: one.update_key("key-1", {"status": "revoked", "updated_at": 1e9})  # noqa: E731
    before = store.mark()
    assert store.mark() == before
    write(store)
    assert store.mark() != before
