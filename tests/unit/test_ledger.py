"""Tokens and money counted against limits, on fake time, with the store's twin."""

import datetime
import itertools

import pytest

from cluster import errors, ledger, plan, reading, records, snapshot
from cluster.store import MemoryStore
from cluster.usage_records import UsageRow


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


NOON = at("2026-03-04T12:00:10")  # a Wednesday
PATH = "admin/demo-chat"


class World:
    """A manager's ledger, its store and its rows; the test is the replicas and the clock."""

    def __init__(self, make, store=None):
        self.make, self.now = make, NOON
        self.store = store or MemoryStore()
        self.numbers = itertools.count()
        self.limits, self.keys = {}, ()
        self.item = self.wanted()
        self.shown = {}
        self.start()

    def start(self):
        """Another manager on the same database."""
        self.ledger = ledger.Ledger(self.store, clock=lambda: self.now)
        self.shown = {}

    def wanted(self):
        endpoint = self.make.endpoint()
        return plan.Wanted(self.make.endpoint(), {}) if not self.limits else plan.Wanted(self.limited(endpoint), {})

    def limited(self, endpoint):
        return records.Endpoint(**{**vars(endpoint), "spec": {**endpoint.spec, "limits": self.limits}})

    def limit(self, **limits):
        self.limits = limits
        self.item = self.wanted()

    def key(self, identity="k1", **columns):
        kept = tuple(row for row in self.keys if row.id != identity)
        self.keys = (*kept, records.Key(identity, f"d-{identity}", "e", "admin", endpoint_id="e1", **columns))

    def use(self, tokens=0, cost=0.0, key="k1", ended=None, told=None):
        """A request ends, and is told. Returns whether something is to be published."""
        ended = self.now if ended is None else ended
        row = UsageRow(
            told or f"r{next(self.numbers)}",
            "admin",
            "demo-chat",
            1,
            "replica",
            key=key,
            prompt_tokens=tokens // 2,
            completion_tokens=tokens - tokens // 2,
            cost=cost,
            ended_at=ended,
            stored_at=self.now,
        )
        with self.ledger.order:
            return self.ledger.add(self.store.add_usage([row]))

    def blocks(self):
        """What the gateways hold after publishing."""
        for subject, block in self.ledger.changes(reading.Reading({"e1": self.item}, {"e1": self.keys}, {})).items():
            if block is None:
                del self.shown[subject]
            else:
                self.shown[subject] = block
        return self.shown


@pytest.fixture
def world(make):
    return World(make)


def test_without_limits_nothing_is_blocked(world):
    world.blocks()
    assert not world.use(10**9, 10**6)
    assert world.blocks() == {}


def test_tokens_of_a_minute_block_a_key_until_the_minute_ends(world):
    world.key(tokens_per_minute=100)
    assert world.blocks() == {}
    assert not world.use(99)
    assert world.use(1)
    assert world.blocks() == {"k:k1": snapshot.Block("token_limit", "tokensPerMinute", 100.0, at("2026-03-04T12:01:00"))}
    assert 49 < world.ledger.rest() < 51
    world.now = at("2026-03-04T12:00:59.999")
    assert world.blocks()
    world.now = at("2026-03-04T12:01:00")
    assert world.blocks() == {}
    assert world.ledger.rest() is None
    assert not world.use(99)


def test_a_request_counts_in_the_minute_in_which_it_ended(world):
    world.key(tokens_per_minute=100)
    world.blocks()
    world.now = at("2026-03-04T12:01:05")
    assert not world.use(100, ended=at("2026-03-04T12:00:59"))
    assert not world.use(60, ended=at("2026-03-04T12:01:00"))
    assert world.use(40)
    assert list(world.blocks()) == ["k:k1"]


@pytest.mark.parametrize(
    ("period", "last", "first", "until"),
    [
        ("day", "2026-03-03T23:59:59", "2026-03-04T00:00:00", "2026-03-05"),
        ("week", "2026-03-01T23:59:59", "2026-03-02T00:00:00", "2026-03-09"),
        ("month", "2026-02-28T23:59:59", "2026-03-01T00:00:00", "2026-04-01"),
    ],
)
def test_a_budget_begins_anew_with_its_period(world, period, last, first, until):
    world.key(budget=2.0, budget_period=period)
    world.now = at(last)
    world.blocks()
    assert world.use(cost=2.0)
    assert world.blocks()["k:k1"].until == at(first)
    world.now = at(first)
    assert world.blocks() == {}
    world.now = NOON
    assert not world.use(cost=1.5)
    assert world.use(cost=0.5)
    assert world.blocks() == {"k:k1": snapshot.Block("budget_exceeded", "budget", 2.0, at(until))}


def test_a_total_budget_ends_with_no_window_but_when_it_is_raised(world):
    world.key(budget=1.0, budget_period="total")
    world.blocks()
    world.use(cost=1.0)
    assert world.blocks() == {"k:k1": snapshot.Block("budget_exceeded", "budget", 1.0, 0.0)}
    assert world.ledger.rest() is None
    world.now += 10 * 365 * 86_400
    assert list(world.blocks()) == ["k:k1"]
    world.key(budget=1.5, budget_period="total")
    assert world.blocks() == {}
    assert world.use(cost=0.5)


def test_an_endpoints_limit_counts_all_its_callers(world):
    world.limit(tokensPerDay=100)
    world.blocks()
    for key in ("k1", "k2", ""):
        world.use(30, key=key)
    assert world.blocks() == {}
    assert world.use(30, key="")
    assert world.blocks() == {f"e:{PATH}": snapshot.Block("token_limit", "tokensPerDay", 100.0, at("2026-03-05"))}


def test_of_several_limits_the_longest_block_is_told(world):
    world.key(tokens_per_minute=10, tokens_per_day=20, budget=1.0, budget_period="total")
    world.blocks()
    world.use(10)
    assert world.blocks()["k:k1"].limit == "tokensPerMinute"
    assert world.use(10)
    assert world.blocks()["k:k1"].limit == "tokensPerDay"
    assert world.use(cost=1.0)
    assert world.blocks()["k:k1"].limit == "budget"


def test_a_limit_that_is_raised_or_taken_back_unblocks_at_the_next_publishing(world):
    world.key(tokens_per_day=10)
    world.limit(tokensPerDay=10)
    world.blocks()
    world.use(10)
    assert set(world.blocks()) == {"k:k1", f"e:{PATH}"}
    world.key(tokens_per_day=11)
    world.limit()
    assert world.blocks() == {}
    assert world.use(1)
    assert set(world.blocks()) == {"k:k1"}


def test_a_limit_that_is_new_counts_what_was_used_before_it(world):
    world.key()
    world.blocks()
    world.use(50, cost=3.0)
    world.key(tokens_per_minute=50)
    assert world.blocks()["k:k1"].limit == "tokensPerMinute"
    world.key(budget=3.0, budget_period="total")
    assert world.blocks()["k:k1"].limit == "budget"


def test_a_revoked_key_and_a_deleted_endpoint_are_blocked_no_more(world):
    world.key(tokens_per_day=1)
    world.limit(tokensPerDay=1)
    world.blocks()
    world.use(1)
    assert len(world.blocks()) == 2
    world.key(tokens_per_day=1, status="revoked")
    assert set(world.blocks()) == {f"e:{PATH}"}
    assert world.ledger.changes(reading.Reading({}, {}, {})) == {f"e:{PATH}": None}


@pytest.mark.parametrize("window", ["tokens_per_minute", "tokens_per_day", "budget"])
def test_a_manager_that_starts_again_blocks_before_it_has_been_told_anything(world, window):
    world.key(**{window: 10})
    world.limit(budget=10.0, budgetPeriod="week")
    world.blocks()
    world.use(10, cost=10.0)
    before = dict(world.blocks())
    assert set(before) == {"k:k1", f"e:{PATH}"}
    world.start()
    assert world.blocks() == before


def test_what_is_told_again_after_a_restart_counts_once(world):
    world.key(tokens_per_day=100)
    world.blocks()
    world.use(60, told="one")
    world.start()
    assert world.blocks() == {}
    assert not world.use(60, told="one")
    assert world.blocks() == {}
    assert world.use(40)


def test_use_of_last_months_budget_is_not_read_at_a_restart(world):
    world.key(budget=5.0)
    world.now = at("2026-02-28T23:00:00")
    world.blocks()
    world.use(cost=5.0)
    world.now = NOON
    world.start()
    assert world.blocks() == {}


def test_while_a_batch_is_being_stored_a_new_limit_waits_and_publishing_does_not(world, monkeypatch):
    monkeypatch.setattr(ledger, "PATIENCE_S", 0.01)
    world.blocks()
    world.use(10)
    world.key(tokens_per_day=5)
    with world.ledger.order:
        assert world.blocks() == {}
        assert world.ledger.add([])  # whoever stored it publishes again
    assert set(world.blocks()) == {"k:k1"}


def test_nothing_is_published_before_what_was_used_is_known(world):
    class Away(MemoryStore):
        def spent(self, *words, **more):
            raise errors.Unavailable

    world.store = Away()
    world.start()
    world.key(tokens_per_day=5)
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            world.blocks()


def test_a_new_limit_that_cannot_be_read_yet_does_not_hold_up_other_blocks(world, monkeypatch):
    world.key(tokens_per_day=5)
    world.blocks()
    world.use(5)
    world.limit(tokensPerDay=5)
    with monkeypatch.context() as away:
        away.setattr(world.store, "spent", lambda *words: (_ for _ in ()).throw(errors.Unavailable()))
        assert set(world.blocks()) == {"k:k1"}
    assert set(world.blocks()) == {"k:k1", f"e:{PATH}"}


def test_sums_of_money_that_rounding_keeps_below_a_budget_have_reached_it(world):
    world.key(budget=1.0)
    world.blocks()
    for _ in range(9):
        world.use(cost=0.1)
    assert world.blocks() == {}
    assert world.use(cost=0.1)


def test_only_those_whose_rows_changed_are_looked_at(world, monkeypatch):
    world.key(tokens_per_day=5)
    world.blocks()
    seen = []
    monkeypatch.setattr(ledger, "rules_of", lambda row: seen.append(row) or ())
    for _ in range(3):
        world.blocks()
    assert seen == []


def test_a_key_is_unlimited_where_neither_it_nor_the_endpoint_counts_tokens_or_money(world):
    assert world.ledger.unlimited(PATH, ["k1"]) == [], "nothing has been read yet"
    world.key("k1")
    world.key("k2", tokens_per_day=100)
    world.key("k3", requests_per_minute=5)
    world.blocks()
    assert sorted(world.ledger.unlimited(PATH, {"k1", "k2", "k3", ""})) == ["", "k1", "k3"]
    assert world.ledger.unlimited("admin/other", ["k1"]) == ["k1"]
    world.key("k1", budget=1.0)
    world.key("k2")
    world.blocks()
    assert world.ledger.unlimited(PATH, ["k1", "k2"]) == ["k2"]
    world.limit(tokensPerMinute=10)
    world.blocks()
    assert world.ledger.unlimited(PATH, ["k1", "k2", "k3", ""]) == []
    assert world.ledger.unlimited("admin/other", ["k2"]) == ["k2"]
