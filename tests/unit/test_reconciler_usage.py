"""The control loop with the ledger and the accounts: blocks are in the snapshot at once, hardware is accounted for."""

import asyncio
import dataclasses
import threading

import pytest

from cluster import accounting, board, instance_types, ledger, publisher, reconciler, records
from cluster.serve_twin import ServeTwin
from cluster.settings import Settings
from cluster.store import MemoryStore
from cluster.usage_records import Asked, UsageRow

R1 = "admin--demo-chat--r1"
START = 1_772_625_600.0


class World:
    def __init__(self, make, tmp_path, **columns):
        self.now, self.make = START, make
        self.settings = Settings(home=tmp_path, tick_s=100, spare_workers=False)
        self.store, self.serve = MemoryStore(), ServeTwin()
        endpoint = make.endpoint(**columns)
        spec = {**endpoint.spec, "limits": {"tokensPerMinute": 10}}
        self.store.create_endpoint(dataclasses.replace(endpoint, spec=spec), {"compute": {"instanceType": "gpu"}}, None, {})
        self.start()

    def start(self):
        self.board, self.publisher = board.Board(self.now), publisher.Publisher(0)
        self.ledger = ledger.Ledger(self.store, lambda: self.now)
        types = instance_types.parse("instanceTypes: [{name: gpu, pricePerHour: 3600, accelerator: H200}]")
        accounts = accounting.Accounts(self.store, lambda: types, clock=lambda: self.now)
        self.loop = reconciler.Reconciler(
            self.settings,
            b"secret",
            self.store,
            self.serve,
            self.board,
            self.publisher,
            self.make.deploy,
            lambda: self.now,
            limits=self.ledger,
            accounts=accounts,
        )

    def use(self, tokens):
        row = UsageRow(f"r{tokens}", "admin", "demo-chat", 1, "x", prompt_tokens=tokens, ended_at=self.now, stored_at=self.now)
        with self.ledger.order:
            return self.ledger.add(self.store.add_usage([row]))

    def shown(self):
        async def first():
            async for news in self.publisher.watch():
                return news

        return asyncio.run(asyncio.wait_for(first(), 10))


@pytest.fixture
def world(make, tmp_path):
    return World(make, tmp_path)


def test_a_block_is_in_the_snapshot_after_publishing_and_goes_when_its_minute_ends(world):
    world.loop.reconcile()
    assert world.shown().blocks == {}
    version = world.publisher.version
    assert world.use(10)
    world.loop.publish()
    assert world.publisher.version == version + 1
    assert world.shown().blocks["e:admin/demo-chat"].until == START + 60
    world.now += 60
    world.loop.publish()
    assert world.shown().blocks == {}


def test_the_first_snapshot_of_a_new_manager_has_the_blocks(world):
    world.use(10)
    world.start()
    world.loop.reconcile()
    assert list(world.shown().blocks) == ["e:admin/demo-chat"]


def test_what_is_used_up_is_published_without_a_pass(world):
    """The next tick is far away, and Serve does not answer."""
    running = threading.Thread(target=world.loop.run)

    async def watch():
        watching = world.publisher.watch()
        await anext(watching)
        world.serve.down = True
        assert world.use(10)
        world.loop.spread()
        async for news in watching:
            if news.blocks:
                return news.blocks

    running.start()
    try:
        assert list(asyncio.run(asyncio.wait_for(watch(), 10))) == ["e:admin/demo-chat"]
    finally:
        world.loop.stop()
        running.join()


def test_hardware_is_accounted_for_by_passes_and_zero_is_noted(make, tmp_path):
    world = World(make, tmp_path, scaling={"minReplica": 0, "scaleToZeroTimeout": 1})
    world.loop.reconcile()
    for replica in world.serve.run(R1):
        world.store.put_replica(records.Replica(replica, R1, "e1", 1, "h", 1, 1))
    for _ in range(80):
        world.now += 1
        world.loop.hint("e1")
        world.loop.reconcile()
    (total,) = world.store.held(Asked("0000", "9999"))
    assert total.zeros == 1
    assert 55 <= total.ready_s <= 70
    assert total.hourly_cost == pytest.approx(total.ready_s, abs=1)
    assert 55 <= total.zero_wait_s <= 65
