"""Hardware held for endpoints, on fake time, with the twins of the store and of Serve's looks."""

import dataclasses
import datetime

import pytest

from cluster import accounting, instance_types, observation, plan, prices, reading, records
from cluster.accounting import Claim, Held, Part
from cluster.store import MemoryStore
from cluster.usage_records import Asked, UsageRow

TABLE = instance_types.parse("instanceTypes: [{name: nvidia-h200, pricePerHour: 3600}]")
RATE = prices.Rate("nvidia-h200", "x2", 2.0, 7200.0)
"""Two of money for each second of a replica."""
MIDNIGHT = datetime.datetime(2026, 3, 4, tzinfo=datetime.UTC).timestamp()


def charged(*claims, committed=0, span=10.0, seconds=None):
    part = Part(1, "", tuple(Claim(f"r{number}", ready, RATE) for number, ready in enumerate(claims)), RATE, committed)
    times = {claim.id: span for claim in part.claims} | (seconds or {})
    return next(iter(accounting.charges(Held("admin", "demo-chat", (part,)), times, span)))


@pytest.mark.parametrize(
    ("claims", "committed", "ready_s", "starting_s", "hourly", "promised"),
    [
        # hourly: every replica by its time, starting ones too; nothing at zero
        ((True, True), 0, 20, 0, 40, 0),
        ((True, False), 0, 10, 10, 40, 0),
        ((), 0, 0, 0, 0, 0),
        # committed: the number for the whole time, up or not, and by the hour what is over it
        ((True, True), 2, 20, 0, 0, 40),
        ((True,), 2, 10, 0, 0, 40),
        ((), 1, 0, 0, 0, 20),
        ((True, True, True), 1, 30, 0, 40, 20),
        ((True, False), 1, 10, 10, 20, 20),
    ],
)
def test_plans(claims, committed, ready_s, starting_s, hourly, promised):
    place, amounts = charged(*claims, committed=committed)
    assert place == ("admin", "demo-chat", 1, "nvidia-h200", "x2")
    assert (amounts["ready_s"], amounts["starting_s"]) == (ready_s, starting_s)
    assert (amounts["hourly_cost"], amounts["committed_cost"]) == (hourly, promised)
    assert amounts["accelerator_s"] == 2 * (ready_s + starting_s)


def test_the_committed_number_covers_those_that_were_there_longest():
    _, amounts = charged(True, True, committed=1, seconds={"r0": 4.0, "r1": 10.0})
    assert (amounts["hourly_cost"], amounts["committed_cost"]) == (8.0, 20.0)


class World:
    """What the reconciler looks at, as the test says it is."""

    def __init__(self, make, store=None):
        self.make, self.now = make, MIDNIGHT + 1000.0
        self.store = store or MemoryStore()
        self.endpoint = self.row()
        self.replicas, self.announced = (), ()
        self.gone = False
        self.accounts = self.restarted()

    def row(self, plan_="hourly", least=0, **columns):
        spec = {"name": "demo-chat", "compute": {"plan": plan_, "scaling": {"minReplica": least}}}
        return dataclasses.replace(self.make.endpoint(serving=1, **columns), spec=spec)

    def restarted(self):
        return accounting.Accounts(self.store, lambda: TABLE, clock=lambda: self.now)

    def up(self, *ids, ready=True):
        self.replicas = tuple(observation.Replica(identity, "running", "n1") for identity in ids)
        self.announced = ids if ready else ()
        for identity in self.announced:
            self.store.put_replica(records.Replica(identity, "admin--demo-chat--r1", "e1", 1, "h", 1, 1))

    def look(self):
        fields = {"compute": {"instanceType": "nvidia-h200", "instanceSize": "x1"}}
        wanted = {} if self.gone else {"e1": plan.Wanted(self.endpoint, {1: records.Revision("e1", 1, fields)})}
        rows = {"admin--demo-chat--r1": tuple(row for row in self.store.replicas() if row.id in self.announced)}
        seen = {"admin--demo-chat--r1": observation.Application("admin--demo-chat--r1", "running", replicas=self.replicas)}
        self.accounts.look(reading.Reading(wanted, {}, rows), observation.Cluster(seen if self.replicas else {}))

    def run(self, seconds):
        """A look each second."""
        for _ in range(seconds):
            self.now += 1
            self.look()

    def stored(self, *by):
        found = self.store.held(Asked("0000", "9999", by))
        return found if by else found[0]


@pytest.fixture
def world(make):
    return World(make)


def test_ready_and_starting_time_is_stored_every_few_seconds_and_not_at_each_look(world, monkeypatch):
    writes = []
    add = world.store.add_capacity
    monkeypatch.setattr(world.store, "add_capacity", lambda *words: writes.append(words) or add(*words))
    world.look()
    world.up("a", ready=False)
    world.run(20)
    world.up("a", "b")
    world.run(20)
    total = world.stored()
    assert (total.starting_s, total.ready_s, total.hourly_cost) == (20.0, 40.0, 60.0)
    assert 6 <= len(writes) <= 9


def test_at_zero_and_paused_an_hourly_endpoint_costs_nothing_and_a_committed_one_its_number(world):
    world.look()
    world.run(10)
    assert world.stored().hourly_cost == 0
    world.endpoint = world.row("committed", least=2, desired="paused")
    world.run(10)
    assert (world.stored().hourly_cost, world.stored().committed_cost) == (0.0, 20.0)
    world.up("a", "b", "c")
    world.run(10)
    assert (world.stored().hourly_cost, world.stored().committed_cost) == (10.0 - 0.0, 40.0)


def test_replicas_without_a_place_hold_nothing(world):
    world.look()
    world.replicas = (observation.Replica("a", "starting", None), observation.Replica("b", "starting", "n1", waiting=True))
    world.run(10)
    assert world.stored().accelerator_s == 0


def test_time_is_told_apart_at_midnight(world):
    world.now = MIDNIGHT - 3
    world.up("a")
    world.look()
    world.run(6)
    assert [(one.group["day"], one.ready_s) for one in world.stored("day")] == [("2026-03-03", 3.0), ("2026-03-04", 2.0)]


def test_a_manager_that_was_killed_loses_nothing_of_replicas_that_ran_on_and_counts_nothing_twice(world):
    world.look()
    world.up("a", "new")
    world.run(22)
    before = world.stored().ready_s
    assert 34 <= before <= 44
    world.now += 30
    world.accounts = world.restarted()
    world.up("a", "new")
    world.look()
    world.run(10)
    assert world.stored().ready_s == pytest.approx(2 * (22 + 30 + 10), abs=2)


def test_replicas_that_began_while_no_manager_looked_are_not_charged_for_that_time(world):
    world.up("a")
    world.look()
    world.run(10)
    world.now += 3600
    world.accounts = world.restarted()
    world.up("b")
    world.look()
    world.run(10)
    assert world.stored().hourly_cost == pytest.approx(10 + accounting.NEW_S + 10, abs=5)


def test_two_managers_at_once_do_not_count_the_same_time_twice(world):
    world.up("a")
    world.look()
    world.run(10)
    other = world.restarted()
    mine = world.accounts
    for _ in range(20):
        world.now += 1
        for accounts in (mine, other):
            world.accounts = accounts
            world.look()
    assert world.stored().ready_s <= 30


def test_a_clock_that_went_back_counts_nothing_twice(world):
    world.up("a")
    world.look()
    world.run(10)
    world.now -= 8
    world.accounts = world.restarted()
    world.look()
    world.run(8)
    assert world.stored().ready_s <= 10
    world.run(10)
    assert 15 <= world.stored().ready_s <= 20


def test_what_an_endpoint_waited_before_zero_is_kept_with_its_cost(world):
    world.up("a", "b")
    world.look()
    world.run(3)
    world.accounts.slept(world.endpoint, 900.0)
    world.replicas = ()
    world.run(10)
    total = world.stored()
    assert (total.zeros, total.zero_wait_s, total.zero_wait_cost) == (1, 1800.0, 1800.0)
    world.accounts.slept(world.endpoint, 900.0)
    world.run(10)
    assert world.stored().zeros == 1  # it was at zero already


def test_a_deleted_endpoint_pays_until_it_has_drained_also_after_a_restart(world):
    world.up("a")
    world.look()
    world.run(10)
    world.gone = True
    world.run(10)
    assert world.stored().hourly_cost == pytest.approx(20, abs=1)
    world.accounts.flush()
    world.accounts = world.restarted()
    world.look()
    world.run(10)
    assert world.stored().hourly_cost == pytest.approx(30, abs=1)
    assert {one.group["endpoint"] for one in world.stored("endpoint")} == {"demo-chat"}


@pytest.mark.parametrize("columns", [{"desired": "paused"}, {"awake": False}])
def test_an_hourly_endpoint_pays_until_it_has_drained_and_nothing_then(world, columns):
    world.up("a")
    world.look()
    world.run(10)
    world.endpoint = world.row(**columns)
    world.run(5)
    world.replicas = ()
    world.run(20)
    assert world.stored().hourly_cost == pytest.approx(15, abs=1)


def test_old_requests_are_pruned_meanwhile(world):
    old = UsageRow("old", "admin", "demo-chat", 1, "r", ended_at=1.0, stored_at=world.now - 36 * 86_400)
    world.store.add_usage([old, dataclasses.replace(old, id="new", stored_at=world.now - 34 * 86_400)])
    world.look()
    assert set(world.store.usage_rows(["old", "new"])) == {"new"}
