"""What replicas tell of their requests becomes rows, counted once, priced, and shown to the ledger and to listeners."""

import concurrent.futures
import dataclasses
import math

import pytest

from cluster import errors, instance_types, ledger, messages, meter, plan, reading, records
from cluster.store import MemoryStore
from cluster.usage_records import Asked, CapacityDay

TABLE = instance_types.parse("instanceTypes: [{name: nvidia-h200, pricePerHour: 3600}]")
REPLICA = messages.ReplicaIdentity("admin--demo-chat--r1", "replica-1")
NOON = 1_772_625_600.0
FIELDS = {
    "model": {"repository": "org/model", "image": {"vLLM": {}}},
    "compute": {"instanceType": "nvidia-h200", "instanceSize": "x2"},
}


def usage(identity="r1", **fields):
    usual = {"key": "k1", "tenant": "acme", "model": "demo-chat", "prompt_tokens": 10, "completion_tokens": 5, "share_s": 2.0}
    return messages.Usage(identity, **{**usual, "started_at": NOON - 9, "ended_at": NOON - 3, **fields})


class World:
    def __init__(self, make, store=None):
        self.make, self.store, self.now, self.published = make, store or MemoryStore(), NOON, 0
        self.key = records.Key("k1", "d1", "e", "admin", endpoint_id="e1", tokens_per_day=100)
        self.store.create_endpoint(make.endpoint(), FIELDS, self.key, {})
        self.start()

    def start(self):
        self.ledger = ledger.Ledger(self.store, clock=lambda: self.now)
        self.meter = meter.Meter(
            store=self.store, ledger=self.ledger, endpoint_of=self.endpoint_of, types=lambda: TABLE, news=self.news, clock=lambda: self.now
        )
        self.blocks()

    def news(self):
        self.published += 1

    def endpoint_of(self, application):
        return self.store.endpoint_by_id("e1") if application in (REPLICA.application, "my-declared") else None

    def blocks(self):
        wanted = {"e1": plan.Wanted(self.make.endpoint(), {})}
        return self.ledger.changes(reading.Reading(wanted, {"e1": (self.key,)}, {}))

    def total(self, *by, **fields):
        return self.store.used(Asked("0000", "9999", by, **fields))


@pytest.fixture
def world(make):
    return World(make)


def test_a_request_is_stored_under_its_endpoint_with_what_it_took_and_cost(world):
    world.meter.add(REPLICA, [usage(adapter="style", images=2, cached_tokens=4, route="/v1/completions")])
    row = world.store.usage_rows(["r1"])["r1"]
    assert (row.path, row.revision, row.replica, row.key, row.tenant) == ("admin/demo-chat", 1, "replica-1", "k1", "acme")
    assert (row.model, row.served, row.adapter, row.route) == ("demo-chat", "org/model", "style", "/v1/completions")
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.images) == (10, 5, 4, 2)
    # two seconds of a replica with two accelerators that cost one of money a second each
    assert (row.share_s, row.accelerator_s, row.cost, row.stored_at) == (2.0, 4.0, 4.0, NOON)


def test_a_replica_is_told_which_keys_have_no_limit(world):
    told = [usage("a"), usage("b", key="free"), usage("c", key="")]
    assert sorted(world.meter.add(REPLICA, told)) == ["", "free"]
    assert sorted(world.meter.add(REPLICA, told)) == ["", "free"], "also when it tells them again"


def test_a_batch_that_is_told_twice_counts_once_and_listeners_hear_it_once(world):
    heard = []
    world.meter.on_usage.append(lambda path, replica, new: heard.append((path, replica, [one.id for one in new])))
    world.meter.add(REPLICA, [usage("a"), usage("b"), usage("a", prompt_tokens=999)])
    world.meter.add(REPLICA, [usage("b"), usage("c"), usage("a")])
    world.meter.add(REPLICA, [usage("c")])
    world.meter.add(REPLICA, [])
    assert heard == [("admin/demo-chat", "replica-1", ["a", "b"]), ("admin/demo-chat", "replica-1", ["c"])]
    assert (world.total()[0].finished, world.total()[0].prompt_tokens) == (3, 30)


def test_a_request_that_was_tried_at_two_replicas_counts_at_both_and_each_once(world):
    """Whichever is told first, in one batch or in several; what another replica passes on for a dead one is no attempt of its own."""
    heard = []
    world.meter.on_usage.append(lambda path, replica, new: heard.extend((replica, one.prompt_tokens) for one in new))
    other, third = dataclasses.replace(REPLICA, id="replica-2"), dataclasses.replace(REPLICA, id="replica-3")
    for _ in range(2):
        world.meter.add(REPLICA, [usage("a", outcome="failed", prompt_tokens=1, started_at=NOON - 20)])
        world.meter.add(other, [usage("a", prompt_tokens=100), usage("b")])
        world.meter.add(third, [usage("a", outcome="failed", prompt_tokens=1, started_at=NOON - 20)])
    (total,) = world.total()
    assert (total.finished, total.failed, total.prompt_tokens) == (2, 1, 111)
    assert heard == [("replica-1", 1), ("replica-2", 10), ("replica-2", 100)]
    assert world.blocks()["k:k1"].limit == "tokensPerDay"


def test_the_id_is_for_the_attempt_that_was_answered_at_whichever_replica_and_whichever_is_told_first(world):
    """The edge makes a request again, at the same replica where there is no other, of which it saw no byte of an answer."""
    broken = usage("a", outcome="failed", status=0, prompt_tokens=1, started_at=NOON - 20)
    for _ in range(2):
        world.meter.add(REPLICA, [broken, usage("a")])
        world.meter.add(dataclasses.replace(REPLICA, id="replica-2"), [usage("b"), dataclasses.replace(broken, id="b")])
    assert {identity: row.outcome for identity, row in world.store.usage_rows(["a", "b"]).items()} == {"a": "finished", "b": "finished"}
    (total,) = world.total()
    assert (total.finished, total.failed, total.prompt_tokens) == (2, 2, 22)


def test_a_limit_that_is_used_up_is_published_at_once(world):
    world.meter.add(REPLICA, [usage("a", prompt_tokens=80)])
    assert world.published == 0
    world.meter.add(REPLICA, [usage("b", prompt_tokens=80)])
    assert world.published == 1
    assert world.blocks()["k:k1"].limit == "tokensPerDay"


def test_the_use_of_a_deleted_endpoint_is_kept_under_its_name_at_the_price_it_was_last_seen_at(world):
    world.store.delete_endpoint("e1")
    world.start()
    world.meter.add(REPLICA, [usage("a")])
    assert world.total("endpoint")[0].group == {"namespace": "admin", "endpoint": "demo-chat"}
    assert world.total()[0].cost == 0
    world.store.add_capacity([CapacityDay("2026-03-04", "admin", "demo-chat", 1, "nvidia-h200", "x1")], 0.0, 1.0)
    world.meter.add(REPLICA, [usage("b")])
    assert world.total()[0].cost == 2.0


def test_a_declared_endpoint_is_found_by_its_application(world):
    world.meter.add(dataclasses.replace(REPLICA, application="my-declared"), [usage("a")])
    world.meter.add(dataclasses.replace(REPLICA, application="somebody-elses"), [usage("b")])
    groups = [tuple(one.group.values()) for one in world.total("endpoint")]
    assert groups == [("", "somebody-elses"), ("admin", "demo-chat")]


@pytest.mark.parametrize(
    ("model", "member", "served"),
    [
        ({"repository": "/srv/models/chat-7b/"}, "", "chat-7b"),
        ({"repository": "s3://secret-bucket/team/chat"}, "", "chat"),
        ({"repository": "org/model", "members": [{"name": "small"}]}, "small", "small"),
        ({"image": {"echo": {}}}, "", "echo"),
        ({}, "", ""),
    ],
)
def test_sums_are_told_apart_by_what_answered_not_by_what_clients_wrote(make, model, member, served):
    store = MemoryStore()
    store.create_endpoint(make.endpoint(), {"model": model}, None, {})
    counter = meter.Meter(
        store=store,
        ledger=ledger.Ledger(store),
        endpoint_of=lambda _: store.endpoint_by_id("e1"),
        types=lambda: TABLE,
        news=lambda: None,
        clock=lambda: NOON,
    )
    counter.add(dataclasses.replace(REPLICA, member=member), [usage(f"r{number}", model=f"made-up-{number}") for number in range(5)])
    assert [one.group["model"] for one in store.used(Asked("0000", "9999", ("model",)))] == [served]


def test_an_adapter_that_was_only_asked_for_is_no_group_of_its_own(world):
    world.meter.add(REPLICA, [usage(f"r{n}", adapter=f"none-{n}", outcome="failed", status=404, prompt_tokens=0) for n in range(5)])
    assert [one.group["adapter"] for one in world.total("adapter")] == [""]


def test_numbers_that_make_no_sense_do_not_hold_up_the_others(world):
    odd = usage(
        "odd",
        prompt_tokens=-5,
        completion_tokens=10**400,
        cached_tokens="many",
        share_s=math.nan,
        total_s=math.inf,
        ended_at=-1.0,
        outcome="lost",
        status=10**9,
    )
    world.meter.add(REPLICA, [odd, usage("good"), usage("", started_at=1.0), usage("x" * 5000), usage("\x00")])
    row = world.store.usage_rows(["odd"])["odd"]
    assert (row.prompt_tokens, row.completion_tokens, row.share_s, row.total_s, row.ended_at) == (0, 2**53, 0.0, 0.0, NOON)
    assert (row.outcome, row.status) == ("failed", 999)
    assert (world.total()[0].finished, world.total()[0].failed) == (4, 1)


def test_a_request_without_an_id_counts_once_too(world):
    for _ in range(3):
        world.meter.add(REPLICA, [usage(""), usage("", started_at=1.0)])
    assert world.total()[0].finished == 2


def test_a_node_whose_clock_is_ahead_does_not_use_up_the_next_minute(world):
    world.meter.add(REPLICA, [usage("a", ended_at=NOON + 500)])
    assert world.store.usage_rows(["a"])["a"].ended_at == NOON


class Slow(MemoryStore):
    """Counts transactions; some fail, told by their numbers or how many of the first."""

    def __init__(self, failures=0):
        super().__init__()
        self.failures, self.batches = set(range(failures)) if isinstance(failures, int) else {*failures}, []

    def add_usage(self, rows):
        self.batches.append(len(rows))
        if len(self.batches) - 1 in self.failures:
            raise errors.Unavailable
        return super().add_usage(rows)


def test_batches_that_arrive_together_are_one_transaction(make):
    world = World(make, Slow())
    heard = []
    world.meter.on_usage.append(lambda path, replica, new: heard.extend(one.id for one in new))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with world.ledger.order:
            told = [pool.submit(world.meter.add, REPLICA, [usage(f"{n}"), usage("same")]) for n in range(8)]
            while len(world.meter._waiting) < 8:
                pass
        for one in told:
            one.result()
    assert world.store.batches == [16]
    assert sorted(heard) == sorted([*map(str, range(8)), "same"])


def test_what_could_not_be_stored_is_refused_and_counts_when_it_is_told_again(make):
    world = World(make, Slow(failures=1))
    with pytest.raises(errors.Unavailable):
        world.meter.add(REPLICA, [usage("a")])
    world.meter.add(REPLICA, [usage("a")])
    assert world.total()[0].finished == 1


def test_what_was_stored_is_heard_of_and_published_though_another_attempt_could_not_be(make):
    world = World(make, Slow(failures=[2]))
    heard = []
    world.meter.on_usage.append(lambda path, replica, new: heard.extend((one.id, one.started_at) for one in new))
    world.meter.add(REPLICA, [usage("a")])
    told = [usage("b", prompt_tokens=200), usage("a", started_at=NOON - 20)]
    with pytest.raises(errors.Unavailable):
        world.meter.add(REPLICA, told)
    assert world.published == 1
    world.meter.add(REPLICA, told)
    assert heard == [("a", NOON - 9), ("b", NOON - 9), ("a", NOON - 20)]
