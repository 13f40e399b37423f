"""The reconciler's copy of the store, read while others write."""

import pytest

from cluster import granting, records
from cluster.reading import Reader
from cluster.store.memory import MemoryStore


class Store(MemoryStore):
    """Does something in the middle of a whole reading."""

    def __init__(self):
        super().__init__()
        self.meanwhile = lambda: None
        self.wholes = 0

    def all_revisions(self):
        found = super().all_revisions()
        self.wholes += 1
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        endpoints = self.endpoints()
        self.endpoints = lambda: endpoints
        meanwhile()
        del self.endpoints
        return found


@pytest.fixture
def store(make):
    made = Store()
    made.create_endpoint(make.endpoint(), {}, None, {})
    return made


@pytest.fixture
def reader(store):
    made = Reader(store)
    made.refresh(1000.0)
    assert made.read().wanted["e1"].endpoint.awake
    return made


def test_a_whole_reading_does_not_bring_back_what_has_changed_meanwhile(store, reader):
    def change():
        store.note_endpoint("e1", {"awake": False})
        reader.hint("e1")
        assert not reader.read().wanted["e1"].endpoint.awake

    store.add_key(records.Key("k", "d", "p", "admin", owner="ann"))
    store.meanwhile = change
    reader.refresh(1011.0)
    assert not reader.read().wanted["e1"].endpoint.awake


def test_a_hint_during_a_whole_reading_is_not_lost(store, reader):
    def change():
        store.note_endpoint("e1", {"awake": False})
        reader.hint("e1")

    store.add_key(records.Key("k", "d", "p", "admin", owner="ann"))
    store.meanwhile = change
    reader.refresh(1011.0)
    assert not reader.read().wanted["e1"].endpoint.awake


def test_everything_is_read_again_only_when_somebody_wrote(store, reader):
    for now in (1005.0, 1011.0, 1022.0):
        reader.refresh(now)
    assert store.wholes == 1
    store.add_key(records.Key("k", "d", "p", "admin", owner="ann"))
    reader.refresh(1025.0)
    assert store.wholes == 1
    reader.refresh(1033.0)
    assert store.wholes == 2
    assert [key.id for key in reader.read().keys[granting.of_user("ann")]] == ["k"]


def test_a_user_and_its_keys_are_read_alone_when_they_are_hinted(store, reader):
    store.add_namespace("admin")
    store.add_user(records.User("ann", "admin", "admin"))
    store.add_user(records.User("bob", "admin", "admin"))
    store.add_key(records.Key("k", "d", "p", "admin", owner="ann"))
    before = reader.read()
    assert (before.keys.keys(), before.people.users) == (set(), {})
    reader.hint(granting.of_user("ann"))
    now = reader.read()
    assert [key.id for key in now.keys[granting.of_user("ann")]] == ["k"]
    assert (list(now.people.users), store.wholes) == (["ann"], 1)
    assert reader.read().people is now.people


def test_a_namespace_is_read_when_it_is_hinted_or_an_endpoint_lies_in_it_and_forgotten_when_it_is_gone(store, reader, make):
    store.add_namespace("team")
    reader.hint(granting.of_namespace("team"))
    assert reader.read().people.tenant_of("team") == "team"
    store.delete_namespace("team")
    reader.hint(granting.of_namespace("team"))
    assert reader.read().people.namespaces == {}
    store.add_namespace("other")
    store.create_endpoint(make.endpoint(id="e2", namespace="other"), {}, None, {})
    reader.hint("e2")
    assert list(reader.read().people.namespaces) == ["other"]
    assert store.wholes == 1


def test_a_user_that_another_process_changes_is_noticed(store, reader):
    store.add_namespace("admin")
    store.add_user(records.User("ann", "admin", "admin"))
    reader.refresh(1011.0)
    assert reader.read().people.users["ann"].active
    store.update_user("ann", {"active": False, "updated_at": 5.0})
    reader.refresh(1022.0)
    assert not reader.read().people.users["ann"].active
