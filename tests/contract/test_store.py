"""What every Store promises, kept by SQLite, PostgreSQL and the twin in memory."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cluster import errors, records
from cluster.store import Store
from cluster.store.base import EVENTS_KEPT

SPEC = {"name": "demo-chat", "model": {"repository": "Qwen/Qwen3-0.6B", "env": {"A": "1"}}, "tags": ["a", "b"]}
FIELDS = {"model": {"repository": "Qwen/Qwen3-0.6B"}, "compute": {"accelerator": "cpu"}}


def endpoint(identity: str = "ep-1", name: str = "demo-chat", namespace: str = "acme", **fields: Any) -> records.Endpoint:
    return records.Endpoint(identity, namespace, name, SPEC, 0, **{"created_at": 10.5, "created_by": "ann", **fields})


def key(identity: str = "key-1", endpoint_id: str | None = "ep-1", **fields: Any) -> records.Key:
    return records.Key(identity, fields.pop("digest", f"digest of {identity}"), "e", "acme", endpoint_id=endpoint_id, **fields)


def event(kind: str = "created", endpoint_id: str = "ep-1", at: float = 1.0, **fields: Any) -> records.Event:
    return records.Event(endpoint_id, at, kind, **fields)


def replica(identity: str = "r-1", endpoint_id: str = "ep-1", **fields: Any) -> records.Replica:
    return records.Replica(identity, "acme--demo-chat--r1", endpoint_id, 1, "127.0.0.1", 4711, 8, ("chat", "stream"), 2.5, **fields)


def identity_of(key: records.Key) -> str:
    return key.id


def kinds(events: list[records.Event]) -> list[str]:
    return [one.kind for one in events]


@pytest.fixture
def created(store: Store) -> records.Endpoint:
    """An endpoint with everything that may belong to one."""
    made = store.create_endpoint(endpoint(), FIELDS, key(first=True), {"HF_TOKEN": "sealed"}, [event(data={"by": "ann"})])
    store.put_replica(replica())
    return made


# Endpoints


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
    assert made == dataclasses.replace(given, target=1)
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


def test_revision_numbers_of_a_deleted_endpoint_are_not_used_again(store: Store, created: records.Endpoint) -> None:
    store.update_endpoint("ep-1", {}, fields=FIELDS)
    store.delete_endpoint("ep-1")
    again = store.create_endpoint(endpoint("ep-2"), FIELDS, None, {})
    assert again.target == 3
    assert [one.number for one in store.revisions("ep-2")] == [3]
    assert store.create_endpoint(endpoint("ep-3", namespace="zeta"), FIELDS, None, {}).target == 1


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


# Revisions


def test_all_revisions_are_those_that_serve_or_are_wanted(store: Store, created: records.Endpoint) -> None:
    store.create_endpoint(endpoint("ep-0", "other"), FIELDS, None, {})
    for _ in range(3):
        store.update_endpoint("ep-1", {}, fields=FIELDS)
    store.note_endpoint("ep-1", {"serving": 2})
    assert [(one.endpoint_id, one.number) for one in store.all_revisions()] == [("ep-0", 1), ("ep-1", 2), ("ep-1", 4)]
    assert [one.number for one in store.revisions("ep-1")] == [1, 2, 3, 4]


def test_a_revision_keeps_the_first_time_it_was_live(store: Store, created: records.Endpoint) -> None:
    store.mark_revision("ep-1", 1, live_at=5.0)
    store.mark_revision("ep-1", 1, live_at=6.0)
    assert store.revisions("ep-1")[0].live_at == 5.0


def test_a_failure_is_recorded_with_its_reason_until_it_is_cleared(store: Store, created: records.Endpoint) -> None:
    store.mark_revision("ep-1", 1, failed_at=5.0, reason="OutOfMemory", message="needs 90 GiB")
    store.mark_revision("ep-1", 1, live_at=6.0)
    [failed] = store.revisions("ep-1")
    assert (failed.live_at, failed.failed_at, failed.reason, failed.message) == (6.0, 5.0, "OutOfMemory", "needs 90 GiB")
    store.mark_revision("ep-1", 1, clear=True)
    [retried] = store.revisions("ep-1")
    assert (retried.live_at, retried.failed_at, retried.reason, retried.message) == (6.0, None, "", "")
    store.mark_revision("ep-1", 1, failed_at=7.0, reason="Again", message="", clear=True)
    [again] = store.revisions("ep-1")
    assert (again.failed_at, again.reason) == (7.0, "Again")


def test_marking_an_unknown_revision_does_nothing(store: Store, created: records.Endpoint) -> None:
    before = store.all_revisions()
    store.mark_revision("ep-1", 2, live_at=1.0)
    store.mark_revision("gone", 1, failed_at=1.0)
    assert store.all_revisions() == before


# Keys


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


# Replicas


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


# Events


def test_events_come_ascending_and_the_newest_when_limited(store: Store, created: records.Endpoint) -> None:
    store.add_events([event(f"e{number}", at=float(number), level="warning" if number % 2 else "info") for number in range(10)])
    told = store.events("ep-1")
    assert kinds(told) == ["created", *(f"e{number}" for number in range(10))]
    assert [one.id for one in told] == sorted({one.id for one in told})
    assert kinds(store.events("ep-1", limit=3)) == ["e7", "e8", "e9"]
    assert kinds(store.events("ep-1", after=told[-3].id)) == ["e8", "e9"]
    assert kinds(store.events("ep-1", since=8.0)) == ["e8", "e9"]
    assert kinds(store.events("ep-1", level="warning", limit=2)) == ["e7", "e9"]
    assert kinds(store.events("ep-1", after=told[-1].id)) == []
    assert store.events("ep-1", limit=0) == []


def test_an_event_is_read_back_as_it_was_given(store: Store, created: records.Endpoint) -> None:
    given = event("phase", message="loading", level="error", revision=1, replica="r-1", reason="Slow", data={"bytes": [1, 2]})
    store.add_events([given])
    told = store.events("ep-1")[-1]
    assert dataclasses.replace(told, id=0) == given


def test_only_the_newest_events_of_each_endpoint_are_kept(store: Store, created: records.Endpoint) -> None:
    store.create_endpoint(endpoint("ep-2", "other"), FIELDS, None, {}, [event(endpoint_id="ep-2")])
    store.add_events([event(f"e{number}") for number in range(EVENTS_KEPT + 5)])
    kept = store.events("ep-1", limit=EVENTS_KEPT * 2)
    assert len(kept) == EVENTS_KEPT
    assert (kept[0].kind, kept[-1].kind) == ("e5", f"e{EVENTS_KEPT + 4}")
    store.add_events([event("one more")])
    kept = store.events("ep-1", limit=EVENTS_KEPT * 2)
    assert (len(kept), kept[0].kind, kept[-1].kind) == (EVENTS_KEPT, "e6", "one more")
    assert len(store.events("ep-2")) == 1


def test_event_ids_are_not_given_again_after_a_deletion(store: Store, created: records.Endpoint) -> None:
    last = store.events("ep-1")[-1].id
    store.delete_endpoint("ep-1")
    store.create_endpoint(endpoint("ep-2"), FIELDS, None, {}, [event("new", "ep-2")])
    assert kinds(store.events("ep-2", after=last)) == ["new"]


def test_events_of_endpoints_that_are_gone_are_dropped(store: Store, created: records.Endpoint) -> None:
    store.add_events([event("lost", "gone"), event("kept"), event("lost", "gone too")])
    store.add_events([])
    assert kinds(store.events("ep-1")) == ["created", "kept"]
    assert store.events("gone") == []


def test_an_engines_odd_output_does_not_stop_an_event(store: Store, created: records.Endpoint) -> None:
    odd = "NUL \x00, a lone surrogate \ud800, \u00e9 \u4e2d \U0001f600"
    store.add_events([event("odd", message=odd, reason=odd, data={"tail": odd})])
    store.mark_revision("ep-1", 1, failed_at=1.0, reason="Crash", message=odd)
    for message in (store.events("ep-1")[-1].message, store.revisions("ep-1")[0].message):
        assert message.startswith("NUL ") and message.endswith("\u00e9 \u4e2d \U0001f600")
    assert store.events("ep-1")[-1].data == {"tail": odd}


# Namespaces, idempotency


def test_namespaces_are_sorted_and_added_once(store: Store) -> None:
    for name in ("zeta", "acme", "zeta", "a-b"):
        store.add_namespace(name)
    assert store.namespaces() == ["a-b", "acme", "zeta"]


def test_the_first_answer_for_an_idempotency_key_stays(store: Store) -> None:
    first = records.Remembered("acme", "abc", "digest", 201, '{"a": 1}', 100.0)
    store.remember(first)
    store.remember(dataclasses.replace(first, body="second", created_at=101.0))
    store.remember(dataclasses.replace(first, scope="zeta", body="other"))
    assert store.remembered("acme", "abc") == first
    assert store.remembered("acme", "other") is None


def test_answers_older_than_a_day_are_pruned(store: Store) -> None:
    day = 24 * 3600.0
    for name, at in (("old", 0.0), ("newer", 10.0), ("newest", day + 5.0)):
        store.remember(records.Remembered("acme", name, "digest", 201, "{}", at))
    assert store.remembered("acme", "old") is None
    assert store.remembered("acme", "newer") is not None and store.remembered("acme", "newest") is not None


# Changes

COUNTED: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create_endpoint(endpoint("ep-2", "other"), FIELDS, None, {}),
    "update": lambda store: store.update_endpoint("ep-1", {}),
    "note": lambda store: store.note_endpoint("ep-1", {"awake": False}),
    "delete": lambda store: store.delete_endpoint("ep-1"),
    "mark": lambda store: store.mark_revision("ep-1", 1, live_at=1.0),
    "clear": lambda store: store.mark_revision("ep-1", 1, clear=True),
    "add key": lambda store: store.add_key(key("key-2")),
    "update key": lambda store: store.update_key("key-1", {"status": "revoked"}),
    "put replica": lambda store: store.put_replica(replica("r-2")),
    "remove replica": lambda store: store.remove_replicas(["r-1"]),
}
UNCOUNTED: dict[str, Callable[[Store], object]] = {
    "note of one gone": lambda store: store.note_endpoint("gone", {"awake": False}),
    "note of events only": lambda store: store.note_endpoint("ep-1", {}, [event()]),
    "mark of one gone": lambda store: store.mark_revision("gone", 1, live_at=1.0),
    "key used": lambda store: store.note_keys_used({"key-1": 5.0}),
    "same replica": lambda store: store.put_replica(replica(announced_at=5.0)),
    "unknown replica": lambda store: store.remove_replicas(["unknown"]),
    "events": lambda store: store.add_events([event()]),
    "namespace": lambda store: store.add_namespace("acme"),
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


# Threads


def _at_once(number: int, act: Callable[[int], object]) -> list[object]:
    """What each of `number` threads that start together returned or raised."""
    barrier, results = threading.Barrier(number), [None] * number

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = act(index)  # type: ignore[call-overload]
        except errors.MoorageError as exc:
            results[index] = exc  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(results)


def test_of_twenty_that_create_one_name_at_once_exactly_one_wins(store: Store) -> None:
    results = _at_once(
        20, lambda index: store.create_endpoint(endpoint(f"ep-{index}"), FIELDS, key(f"key-{index}", f"ep-{index}"), {"A": "x"})
    )
    [winner] = [one for one in results if isinstance(one, records.Endpoint)]
    assert sum(isinstance(one, errors.AlreadyExists) for one in results) == 19
    assert store.endpoints() == [winner]
    assert winner.target == 1
    assert store.keys() == store.keys(endpoint_id=winner.id) and len(store.keys()) == 1


def test_of_twenty_that_update_one_generation_at_once_exactly_one_wins(store: Store, created: records.Endpoint) -> None:
    results = _at_once(20, lambda index: store.update_endpoint("ep-1", {"restarts": index}, expected=1, fields={"by": index}))
    [winner] = [one for one in results if isinstance(one, records.Endpoint)]
    assert sum(isinstance(one, errors.StaleGeneration) for one in results) == 19
    assert store.endpoints() == [winner]
    assert (winner.generation, winner.target) == (2, 2)
    assert store.revisions("ep-1")[-1].fields == {"by": winner.restarts}


def test_no_update_of_twenty_at_once_is_lost_and_no_number_given_twice(store: Store, created: records.Endpoint) -> None:
    results = _at_once(20, lambda index: store.update_endpoint("ep-1", {}, fields={"by": index}, events=[event(f"u{index}")]))
    assert sorted(one.target for one in results if isinstance(one, records.Endpoint)) == list(range(2, 22))
    newest = store.endpoint("acme", "demo-chat")
    assert (newest.generation, newest.target) == (21, 21)
    assert len(store.events("ep-1")) == 21


def test_creating_updating_and_deleting_one_name_at_once_ends_in_order(store: Store) -> None:
    def live(index: int) -> int:
        outcomes = 0
        for turn in range(5):
            identity = f"ep-{index}-{turn}"
            try:
                store.create_endpoint(endpoint(identity), FIELDS, None, {}, [event(endpoint_id=identity)])
                store.update_endpoint(identity, {}, fields=FIELDS, events=[event("updated", identity)])
                store.add_events([event("more", identity)])
                store.delete_endpoint(identity)
                outcomes += 1
            except errors.AlreadyExists:
                continue
        return outcomes

    done = [one for one in _at_once(8, live) if isinstance(one, int)]
    assert len(done) == 8 and sum(done) >= 1
    assert store.endpoints() == [] and store.all_revisions() == []
    assert store.create_endpoint(endpoint("last"), FIELDS, None, {}).target == 2 * sum(done) + 1


def test_who_follows_the_events_while_eight_write_misses_none(store: Store, created: records.Endpoint) -> None:
    done, last = threading.Event(), 0
    seen: list[str] = []

    def follow() -> None:
        nonlocal last
        while True:
            finished = done.is_set()
            fresh = store.events("ep-1", after=last, limit=EVENTS_KEPT)
            seen.extend(kinds(fresh))
            last = fresh[-1].id if fresh else last
            if finished:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    _at_once(8, lambda index: [store.add_events([event(f"{index} {number}")]) for number in range(10)])
    done.set()
    follower.join()
    assert sorted(seen) == sorted(["created", *(f"{index} {number}" for index in range(8) for number in range(10))])


def test_an_endpoint_is_found_by_its_id_alone(store: Store, created: records.Endpoint) -> None:
    assert store.endpoint_by_id(created.id) == store.endpoint(created.namespace, created.name)
    assert store.endpoint_by_id("nothing") is None
    store.delete_endpoint(created.id)
    assert store.endpoint_by_id(created.id) is None
