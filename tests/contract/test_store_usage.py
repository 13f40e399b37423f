"""What every store promises of metering: requests counted once, sums by day, hardware accounted up to an instant."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import pytest
from support.store_rows import FIELDS, endpoint, key

from cluster import records
from cluster.store import Store
from cluster.usage_records import Asked, CapacityDay, Scope, Spent, UsageRow

DAY = 1_767_225_600.0
"""2026-01-01 at midnight."""


def row(identity: str, **fields: object) -> UsageRow:
    usual = {"namespace": "acme", "endpoint": "chat-one", "revision": 1, "replica": "r", "key": "k1", "tenant": "t1", "served": "org/model"}
    numbers = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "images": 1,
        "share_s": 2.0,
        "accelerator_s": 4.0,
        "cost": 0.5,
    }
    return UsageRow(identity, **{**usual, **numbers, "ended_at": DAY + 10, "stored_at": DAY + 11, **fields})  # type: ignore[arg-type]


def asked(*by: str, **fields: object) -> Asked:
    return Asked("2026-01-01", "2026-12-31", by, **fields)  # type: ignore[arg-type]


def held(**fields: object) -> CapacityDay:
    usual = {"day": "2026-01-01", "namespace": "acme", "endpoint": "chat-one", "revision": 1, "instance_type": "gpu", "instance_size": "x1"}
    return CapacityDay(**{**usual, **fields})  # type: ignore[arg-type]


def test_a_request_is_counted_once_however_often_it_is_told(store: Store) -> None:
    first = [row("a"), row("b", outcome="failed")]
    assert [one is row for one, row in zip(store.add_usage(first), first, strict=True)] == [True, True]
    assert store.add_usage([row("a", prompt_tokens=999), row("c", outcome="aborted"), row("b"), row("c")]) == [row("c", outcome="aborted")]
    assert store.add_usage([]) == []
    (total,) = store.used(asked())
    assert (total.finished, total.failed, total.aborted) == (1, 1, 1)
    assert (total.prompt_tokens, total.completion_tokens, total.cached_tokens, total.images) == (30, 15, 6, 3)
    assert (total.share_s, total.accelerator_s, total.cost) == (6.0, 12.0, 1.5)
    assert store.usage_rows(["a", "b", "nothing"]) == {one.id: one for one in first}


def test_what_many_tell_at_once_is_counted_once(store: Store) -> None:
    batches = [[row(f"{number % 60}") for number in range(start, start + 40)] for start in range(0, 160, 20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        told = list(pool.map(store.add_usage, batches))
    assert sorted(one.id for new in told for one in new) == sorted(str(number) for number in range(60))
    assert store.used(asked())[0].finished == 60


def test_any_text_is_stored_and_large_batches_too(store: Store) -> None:
    odd = "a\x00\ud800'\"; DROP TABLE usage; --\n" + "x" * 500
    store.add_usage([row(f"r{number}", model=odd, served=odd, key=f"k{number}") for number in range(2000)])
    assert store.used(asked())[0].finished == 2000
    assert len(store.used(asked("key", limit=5000))) == 2000


def test_sums_are_told_apart_by_day_endpoint_key_model_adapter_and_tenant(store: Store) -> None:
    store.add_usage(
        [
            row("a"),
            row("b", ended_at=DAY + 86_400, key="k2", tenant="t2"),
            row("c", endpoint="chat-two", adapter="style"),
            row("d", namespace="other", served="member", key="", tenant=""),
            row("e", revision=2),
        ]
    )

    def groups(*by: str, **fields: object) -> list[tuple[str, ...]]:
        return [(*one.group.values(), str(one.finished)) for one in store.used(asked(*by, **fields))]

    assert groups("day") == [("2026-01-01", "4"), ("2026-01-02", "1")]
    assert groups("endpoint") == [("acme", "chat-one", "3"), ("acme", "chat-two", "1"), ("other", "chat-one", "1")]
    assert groups("revision", endpoint="chat-one", namespace="acme") == [("acme", "chat-one", "1", "2"), ("acme", "chat-one", "2", "1")]
    assert groups("key") == [("", "1"), ("k1", "3"), ("k2", "1")]
    assert groups("model", "adapter") == [("member", "", "1"), ("org/model", "", "3"), ("org/model", "style", "1")]
    assert groups("tenant") == [("", "1"), ("t1", "3"), ("t2", "1")]
    assert groups("key", limit=1, offset=1) == [("k1", "3")]
    assert groups(key="k2") == [("1",)] and groups(model="member") == [("1",)] and groups(adapter="style") == [("1",)]
    assert groups(tenant="t2") == [("1",)] and groups(scope=Scope(frozenset({"other"}))) == [("1",)]
    assert groups(scope=Scope(frozenset({"other"}), "t2")) == [("2",)] and groups(scope=Scope(frozenset())) == [("0",)]
    assert [one.finished for one in store.used(Asked("2026-01-02", "2026-01-02"))] == [1]


def test_what_a_deleted_endpoint_and_its_keys_used_stays(store: Store) -> None:
    made = store.create_endpoint(endpoint(), FIELDS, key(first=True, description="ours"), {})
    words = store.keys(endpoint_id=made.id)[0]
    store.add_usage([row("a", namespace=made.namespace, endpoint=made.name, key=words.id)])
    assert store.key_words([words.id, "gone"]) == {words.id: (words.namespace, "ours")}
    store.delete_endpoint(made.id)
    assert store.add_usage([row("b", namespace=made.namespace, endpoint=made.name, key=words.id)])
    assert store.used(asked("key"))[0].group == {"key": words.id} and store.used(asked())[0].finished == 2
    assert store.key_words([words.id]) == {}


def test_old_requests_are_forgotten_and_their_sums_are_not(store: Store) -> None:
    store.add_usage([row(f"r{number}", stored_at=DAY + number) for number in range(10)])
    assert store.prune_usage(DAY + 6, limit=4) == 4
    assert store.prune_usage(DAY + 6) == 2
    assert store.prune_usage(DAY + 6) == 0
    assert set(store.usage_rows([f"r{number}" for number in range(10)])) == {"r6", "r7", "r8", "r9"}
    assert store.used(asked())[0].finished == 10


def test_what_payers_spent_is_told_since_a_day_and_since_a_moment(store: Store) -> None:
    store.add_usage([row("a"), row("b", key="k2", endpoint="chat-two"), row("c", ended_at=DAY + 86_400, stored_at=DAY + 86_401, key="")])
    assert store.spent("key", "2026-01-01") == {"k1": Spent(15, 0.5), "k2": Spent(15, 0.5)}
    assert store.spent("endpoint", "2026-01-01") == {"acme/chat-one": Spent(30, 1.0), "acme/chat-two": Spent(15, 0.5)}
    assert store.spent("endpoint", "2026-01-02", ["acme/chat-one", "acme/none"]) == {"acme/chat-one": Spent(15, 0.5)}
    assert store.spent("key", "2026-01-01", ["k2"]) == {"k2": Spent(15, 0.5)}
    assert store.spent("key", "2026-01-01", []) == {}
    assert store.spent_lately("endpoint", DAY + 86_400) == {"acme/chat-one": Spent(15, 0.5)}
    assert store.spent_lately("key", DAY, ["k1"]) == {"k1": Spent(15, 0.5)}


def test_hardware_is_accounted_for_from_instant_to_instant_and_never_twice(store: Store) -> None:
    assert store.accounted_until() == 0.0
    assert store.add_capacity([held(ready_s=5.0, accelerator_s=10.0, hourly_cost=1.0)], 0.0, 100.0)
    assert not store.add_capacity([held(ready_s=5.0)], 0.0, 100.0)
    assert store.add_capacity([held(ready_s=2.0, zeros=1, zero_wait_s=3.0), held(revision=2, starting_s=7.0)], 100.0, 105.0)
    assert store.accounted_until() == 105.0
    (total,) = store.held(asked("key"))
    assert (total.ready_s, total.starting_s, total.accelerator_s, total.hourly_cost, total.zeros, total.zero_wait_s) == (7, 7, 10, 1, 1, 3)
    assert [(one.group["revision"], one.ready_s) for one in store.held(asked("revision"))] == [("1", 7.0), ("2", 0.0)]
    assert store.held(asked(scope=Scope(frozenset({"other"}), "t1")))[0].ready_s == 0.0


def test_the_instance_of_a_deleted_revision_is_still_known(store: Store) -> None:
    store.add_capacity([held(), held(day="2026-01-02", instance_size="x2")], 0.0, 1.0)
    assert store.instance_of("acme", "chat-one", 1) == ("gpu", "x2")
    assert store.instance_of("acme", "chat-one", 2) is None


@pytest.mark.parametrize("outcome", ["finished", "aborted", "failed"])
def test_each_outcome_counts_what_it_used(store: Store, outcome: str) -> None:
    store.add_usage([row("a", outcome=outcome)])
    (total,) = store.used(asked())
    assert getattr(total, outcome) == 1 and total.prompt_tokens == 10
    assert {name: value for name, value in dataclasses.asdict(total).items() if name in {"finished", "aborted", "failed"} and value} == {
        outcome: 1
    }


def test_an_endpoint_is_told_from_an_earlier_one_of_its_name_by_its_first_revision(store: Store) -> None:
    first = store.create_endpoint(endpoint(), FIELDS, None, {})
    changed = store.update_endpoint(first.id, {}, fields=FIELDS)
    assert (first.first_revision, changed.first_revision, changed.target) == (1, 1, 2)
    assert store.endpoint("acme", "demo-chat") == changed
    store.delete_endpoint(first.id)
    second = store.create_endpoint(endpoint("ep-2"), FIELDS, None, {})
    assert second.first_revision == store.endpoints()[0].first_revision == 3
    store.add_usage([row(f"r{number}", endpoint="demo-chat", revision=number) for number in (1, 2, 3, 4)])
    store.add_capacity([held(endpoint="demo-chat", revision=number, ready_s=1.0) for number in (2, 3)], 0.0, 1.0)
    mine = asked("revision", endpoint="demo-chat", first_revision=second.first_revision)
    assert [one.group["revision"] for one in store.used(mine)] == ["3", "4"]
    assert [one.group["revision"] for one in store.held(mine)] == ["3"]


def namesake(store: Store, tenant: str) -> None:
    """The namespace `acme` is emptied, deleted and made again, in another tenant."""
    for one in store.endpoints("acme"):
        store.delete_endpoint(one.id)
    store.delete_namespace("acme")
    store.add_tenant(records.Tenant(tenant))
    store.create_namespace(records.Namespace("acme", tenant, created_at=DAY + 100))


OLD = "acme (until 2026-01-01T00:01:40Z)"


def test_a_new_namespace_has_nothing_of_what_was_used_in_an_earlier_one_of_its_name(store: Store) -> None:
    store.add_namespace("acme", 1.0)
    store.add_namespace("other", 1.0)
    store.create_endpoint(endpoint(name="chat-one"), FIELDS, None, {})
    store.add_usage([row("a", cost=2.0), row("b", namespace="other")])
    store.add_capacity([held(ready_s=5.0, hourly_cost=3.0)], 0.0, 1.0)
    namesake(store, "rival")
    new = store.create_endpoint(endpoint("ep-2", "chat-one"), FIELDS, None, {})
    assert store.used(asked(namespace="acme"))[0].finished == 0 and store.held(asked(namespace="acme"))[0].ready_s == 0.0
    assert store.spent("endpoint", "2026-01-01", ["acme/chat-one"]) == {}
    # What the old one's replicas had not told yet, and what the new one's tell.
    late = [row("late"), row("fresh", revision=new.target)]
    assert [one is told for one, told in zip(store.add_usage(late), late, strict=True)] == [True, True]
    assert store.add_capacity([held(ready_s=1.0), held(revision=new.target, ready_s=7.0)], 1.0, 2.0)
    assert [(one.group["namespace"], one.finished, one.cost) for one in store.used(asked("namespace"))] == [
        ("acme", 1, 0.5),
        (OLD, 2, 2.5),
        ("other", 1, 0.5),
    ]
    assert [(one.group["namespace"], one.ready_s) for one in store.held(asked("namespace"))] == [("acme", 7.0), (OLD, 6.0)]
    assert store.used(asked(scope=Scope(frozenset({"acme"}))))[0].finished == 1


def test_a_namespace_that_is_only_named_is_a_new_one_too_and_one_that_is_there_stays(store: Store) -> None:
    store.add_namespace("acme", 1.0)
    store.add_usage([row("a"), row("nobody's", namespace="", revision=0), row("without a revision", revision=0)])
    store.add_namespace("acme", 2.0)
    assert store.used(asked(namespace="acme"))[0].finished == 2
    store.delete_namespace("acme")
    store.add_namespace("acme", DAY + 100)
    found = store.namespace("acme")
    assert found is not None and found.created_at == DAY + 100
    assert [one.group["namespace"] for one in store.used(asked("namespace"))] == ["", OLD]


def test_a_new_tenant_has_nothing_of_what_the_keys_of_an_earlier_one_used(store: Store) -> None:
    store.add_tenant(records.Tenant("t1", created_at=1.0))
    store.add_usage([row("a"), row("b", tenant="t2")])
    store.delete_tenant("t1")
    store.add_tenant(records.Tenant("t1", created_at=DAY + 100))
    assert store.used(asked(scope=Scope(frozenset(), "t1")))[0].finished == 0
    assert [one.group["tenant"] for one in store.used(asked("tenant"))] == ["t1 (until 2026-01-01T00:01:40Z)", "t2"]
    store.delete_tenant("t1")
    store.add_namespace("t1", DAY + 200)
    store.add_usage([row("c")])
    assert store.used(asked(scope=Scope(frozenset(), "t1")))[0].finished == 1
