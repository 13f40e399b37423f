"""What every store promises of endpoints: created, read, listed, updated, observed and deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from support.store_rows import FIELDS, SPEC, endpoint, event, key, kinds, replica

from cluster import errors, records
from cluster.store import Store


def identity_of(key: records.Key) -> str:
    return key.id


def test_a_created_endpoint_is_read_back_as_it_was_given(store: Store) -> None:
    given = endpoint(
        serving=None,
        desired="paused",
        awake=False,
        source="declarative",
        updated_at=11.25,
        updated_by="bob",
        last_request_at=12.125,
        load_seconds=3.5,
        restarts=2,
    )
    made = store.create_endpoint(given, FIELDS, None, {})
    assert made == dataclasses.replace(given, target=1, first_revision=1)
    assert store.endpoint("acme", "demo-chat") == made == store.endpoint("acme", "ep-1")
    assert store.endpoints() == [made]


def test_an_endpoint_is_created_with_its_revision_key_secrets_and_events(store: Store, created: records.Endpoint) -> None:
    assert store.revisions("ep-1") == [records.Revision("ep-1", 1, FIELDS, created_at=10.5, created_by="ann")]
    assert store.keys(endpoint_id="ep-1") == [key(first=True)]
    assert store.secrets("ep-1") == {"HF_TOKEN": "sealed"}
    [told] = store.events("ep-1")
    assert (told.kind, told.data) == ("created", {"by": "ann"})


def test_an_unknown_endpoint_is_not_found(store: Store, created: records.Endpoint) -> None:
    for namespace, name in (("acme", "other"), ("other", "demo-chat"), ("other", "ep-1"), ("acme", "demo\x00chat"), ("acme", "\ud800")):
        with pytest.raises(errors.NotFound):
            store.endpoint(namespace, name)


def test_an_endpoint_named_like_the_id_of_another_is_found_by_its_name(store: Store, created: records.Endpoint) -> None:
    namesake = store.create_endpoint(endpoint("zz", "ep-1"), FIELDS, None, {})
    assert store.endpoint("acme", "ep-1") == namesake


def test_an_endpoint_is_found_by_its_id_alone(store: Store, created: records.Endpoint) -> None:
    assert store.endpoint_by_id(created.id) == store.endpoint(created.namespace, created.name)
    assert store.endpoint_by_id("nothing") is None
    store.delete_endpoint(created.id)
    assert store.endpoint_by_id(created.id) is None


def test_a_name_that_is_taken_is_refused_and_nothing_of_the_second_stays(store: Store, created: records.Endpoint) -> None:
    counted = store.changes()
    with pytest.raises(errors.AlreadyExists, match="'demo-chat' in namespace 'acme'"):
        store.create_endpoint(endpoint("ep-2"), FIELDS, key("key-2", "ep-2"), {"A": "x"}, [event(endpoint_id="ep-2")])
    assert store.endpoints() == [created]
    assert store.keys() == [key(first=True)]
    assert store.revisions("ep-2") == [] and store.secrets("ep-2") == {} and store.events("ep-2") == []
    assert store.changes() == counted
    assert store.update_endpoint("ep-1", {}, fields=FIELDS).target == 2


def test_a_taken_key_leaves_nothing_of_the_endpoint(store: Store, created: records.Endpoint) -> None:
    with pytest.raises(errors.AlreadyExists):
        store.create_endpoint(endpoint("ep-2", "other"), FIELDS, key("key-2", "ep-2", digest="digest of key-1"), {})
    assert store.endpoints() == [created]
    assert store.create_endpoint(endpoint("ep-2", "other"), FIELDS, None, {}).target == 1


def test_a_name_may_be_used_in_each_namespace(store: Store, created: records.Endpoint) -> None:
    other = store.create_endpoint(endpoint("ep-2", namespace="zeta"), FIELDS, None, {})
    assert other.target == 1
    assert store.endpoints() == [created, other]
    assert store.endpoints("zeta") == [other]
    assert store.endpoints("nobody") == []


def test_endpoints_are_listed_by_namespace_and_name_in_the_order_of_code_points(store: Store) -> None:
    given = [("b", "a-b"), ("b", "a1"), ("a-c", "zz"), ("ab", "b"), ("a", "b"), ("b", "ab"), ("b", "a-a"), ("b", "Zz")]
    for number, (namespace, name) in enumerate(given):
        store.create_endpoint(endpoint(f"ep-{number}", name, namespace), FIELDS, None, {})
    assert [(one.namespace, one.name) for one in store.endpoints()] == sorted(given)


def test_a_deleted_endpoint_leaves_nothing_but_what_belongs_to_others(store: Store, created: records.Endpoint) -> None:
    other = store.create_endpoint(endpoint("ep-2", "other"), FIELDS, key("key-2", "ep-2"), {"A": "x"}, [event(endpoint_id="ep-2")])
    store.put_replica(replica("r-2", "ep-2"))
    store.add_key(key("platform", None))
    store.delete_endpoint("ep-1")
    assert store.endpoints() == [other]
    assert store.revisions("ep-1") == [] and store.secrets("ep-1") == {} and store.events("ep-1") == []
    assert [*map(identity_of, store.keys())] == ["key-2", "platform"]
    assert store.key_by_digest("digest of key-1") is None
    assert [one.id for one in store.replicas()] == ["r-2"]
    assert len(store.revisions("ep-2")) == len(store.events("ep-2")) == len(store.secrets("ep-2")) == 1


def test_an_update_changes_what_it_names_and_counts_the_generation(store: Store, created: records.Endpoint) -> None:
    changes: dict[str, Any] = {
        "desired": "paused",
        "spec": {**SPEC, "description": "new"},
        "updated_at": 20.0,
        "updated_by": "bob",
        "restarts": 1,
    }
    updated = store.update_endpoint("ep-1", changes, events=[event("paused")])
    assert updated == dataclasses.replace(created, **changes, generation=2)
    assert store.endpoint("acme", "demo-chat") == updated
    assert kinds(store.events("ep-1")) == ["created", "paused"]
    assert store.secrets("ep-1") == {"HF_TOKEN": "sealed"}
    assert len(store.revisions("ep-1")) == 1


def test_an_update_with_fields_adds_a_revision_which_becomes_the_target(store: Store, created: records.Endpoint) -> None:
    updated = store.update_endpoint("ep-1", {"updated_at": 20.0, "updated_by": "bob", "serving": 1}, expected=1, fields={"model": 2})
    assert (updated.target, updated.serving, updated.generation) == (2, 1, 2)
    assert store.endpoint("acme", "demo-chat") == updated
    assert store.revisions("ep-1")[1] == records.Revision("ep-1", 2, {"model": 2}, created_at=20.0, created_by="bob")


def test_an_update_with_secrets_replaces_them_all(store: Store, created: records.Endpoint) -> None:
    store.update_endpoint("ep-1", {}, secrets={"B": "sealed b", "A": "sealed a"})
    assert store.secrets("ep-1") == {"A": "sealed a", "B": "sealed b"}
    store.update_endpoint("ep-1", {}, secrets={})
    assert store.secrets("ep-1") == {}


def test_a_stale_writer_is_refused_and_changes_nothing(store: Store, created: records.Endpoint) -> None:
    newest = store.update_endpoint("ep-1", {"restarts": 1}, expected=1)
    counted = store.changes()
    with pytest.raises(errors.StaleGeneration):
        store.update_endpoint("ep-1", {"restarts": 9}, expected=1, fields={}, secrets={}, events=[event("stale")])
    with pytest.raises(errors.StaleGeneration):
        store.delete_endpoint("ep-1", expected=1)
    assert store.endpoints() == [newest]
    assert len(store.revisions("ep-1")) == 1 and store.secrets("ep-1") == {"HF_TOKEN": "sealed"}
    assert kinds(store.events("ep-1")) == ["created"]
    assert store.changes() == counted
    store.delete_endpoint("ep-1", expected=2)
    assert store.endpoints() == []


def test_changing_an_endpoint_that_is_gone_is_not_found(store: Store) -> None:
    for expected in (None, 1):
        with pytest.raises(errors.NotFound):
            store.update_endpoint("ep-1", {"restarts": 1}, expected=expected, fields={})
        with pytest.raises(errors.NotFound):
            store.delete_endpoint("ep-1", expected=expected)


def test_observations_do_not_count_the_generation(store: Store, created: records.Endpoint) -> None:
    observed: dict[str, Any] = {"serving": 1, "awake": False, "last_request_at": 99.5, "load_seconds": 4.25}
    store.note_endpoint("ep-1", observed, [event("live")])
    assert store.endpoint("acme", "demo-chat") == dataclasses.replace(created, **observed)
    assert kinds(store.events("ep-1")) == ["created", "live"]
    store.note_endpoint("ep-1", {}, [event("only told")])
    assert kinds(store.events("ep-1")) == ["created", "live", "only told"]


def test_observations_of_an_endpoint_that_is_gone_are_dropped(store: Store, created: records.Endpoint) -> None:
    store.note_endpoint("gone", {"serving": 1}, [event("live"), event("live", "gone")])
    store.note_endpoint("gone", {}, [event("live", "gone")])
    assert store.endpoints() == [created]
    assert store.events("gone") == []


def test_changing_what_was_given_or_read_does_not_change_what_is_stored(store: Store) -> None:
    spec: dict[str, Any] = {"model": {"env": {"A": "1"}}}
    data: dict[str, Any] = {"list": [1]}
    store.create_endpoint(dataclasses.replace(endpoint(), spec=spec), spec, None, {}, [event(data=data)])
    reads: list[Callable[[], Any]] = [
        lambda: store.endpoint("acme", "demo-chat").spec,
        lambda: store.endpoints()[0].spec,
        lambda: store.revisions("ep-1")[0].fields,
        lambda: store.all_revisions()[0].fields,
    ]
    spec["model"]["env"]["A"] = "changed"
    data["list"].append(2)
    for read in reads:
        assert read() == {"model": {"env": {"A": "1"}}}
        read()["model"]["env"]["A"] = "changed"
        assert read() == {"model": {"env": {"A": "1"}}}
    store.events("ep-1")[0].data["list"].append(3)
    assert store.events("ep-1")[0].data == {"list": [1]}
