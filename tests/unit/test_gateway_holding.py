"""Waiting lines: order, bounds, one wake, release at the replicas' pace."""

from __future__ import annotations

import asyncio
import math

import pytest

from cluster import errors, snapshot
from gateway import control, holding

PATH = "acme/one"


def row(state="scaledToZero", capacity=0, **fields):
    replicas = (snapshot.Replica("r1", 1, "127.0.0.1", 9000, capacity),) if capacity else ()
    return snapshot.Endpoint("id", "acme", "one", state, replicas=replicas, **fields)


class Setup:
    def __init__(self, first, now=0.0):
        self.now = now
        self.view = holding.View()
        self.manager = control.ControlTwin()
        self.show(first)
        self.holding = holding.Holding(self.view, self.manager, clock=lambda: self.now)
        self.order = []

    def show(self, endpoint):
        self.view.set(snapshot.Snapshot(1, {PATH: endpoint} if endpoint else {}))

    def ask(self, name, seconds=None, done=None):
        async def one():
            async with self.holding.place(PATH, seconds):
                self.order.append(name)
                if done is not None:
                    await done.wait()

        return asyncio.create_task(one())


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_wait_in_order_with_one_wake():
    setup = Setup(row())
    asked = [setup.ask(number) for number in range(20)]
    await settle()
    assert setup.holding.held() == {PATH: 20}
    assert setup.manager.wakes == [PATH]
    setup.show(row("running", capacity=100))
    await asyncio.gather(*asked)
    assert setup.order == list(range(20))
    assert setup.holding.held() == {}
    await setup.holding.stop()


async def test_release_follows_the_replicas_capacity():
    setup, done = Setup(row()), asyncio.Event()
    asked = [setup.ask(number, done=done) for number in range(5)]
    await settle()
    setup.show(row("running", capacity=2))
    await settle()
    assert setup.order == [0, 1]
    done.set()
    await asyncio.gather(*asked)
    assert setup.order == [0, 1, 2, 3, 4]
    await setup.holding.stop()


async def test_the_endpoints_own_cap_is_lower_than_its_replicas():
    assert holding.capacity(row("running", capacity=8, max_concurrency=3)) == 3
    unlimited = snapshot.Replica("r2", 1, "127.0.0.1", 9001, 0)
    assert holding.capacity(snapshot.Endpoint("id", "acme", "one", "running", replicas=(unlimited,))) == math.inf


async def test_a_full_line_refuses_with_what_is_left_of_the_load_time():
    setup = Setup(row(max_queue=1, load_seconds=60.0))
    waiting = setup.ask("first")
    await settle()
    setup.now = 20.0
    with pytest.raises(errors.Starting) as refusal:
        await setup.ask("second")
    assert refusal.value.retry_after == 40.0
    waiting.cancel()
    await settle()
    assert setup.holding.held() == {}
    await setup.holding.stop()


@pytest.mark.parametrize(
    ("shown", "error"),
    [
        (row("paused"), errors.Paused),
        (row("paused", capacity=4), errors.Paused),
        (row("failed"), errors.Failed),
        (row("pending", reason="AwaitingResources"), errors.AwaitingResources),
        (None, errors.ModelNotFound),
    ],
)
async def test_a_line_is_told_when_waiting_cannot_help(shown, error):
    setup = Setup(row("initializing"))
    asked = setup.ask("one")
    await settle()
    setup.show(shown)
    with pytest.raises(error):
        await asked
    with pytest.raises(error):
        await setup.ask("two")
    assert setup.manager.wakes == []


@pytest.mark.parametrize("state", ["running", "updateFailed", "failed"])
async def test_ready_replicas_serve_whatever_the_word_for_the_state(state):
    setup = Setup(row(state, capacity=1))
    await setup.ask("one")
    assert setup.order == ["one"]


async def test_a_request_cancelled_in_the_moment_it_is_let_in_gives_its_place_to_the_next():
    setup = Setup(row())
    first, second = setup.ask("first"), setup.ask("second")
    await settle()
    setup.show(row("running", capacity=1))
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert setup.order == ["second"]
    await setup.holding.stop()


async def test_asking_with_no_patience_wakes_and_does_not_wait():
    setup = Setup(row(load_seconds=5.0))
    with pytest.raises(errors.Starting) as refusal:
        await setup.ask("one", seconds=0)
    await settle()
    assert refusal.value.retry_after == 5.0
    assert setup.manager.wakes == [PATH]
    await setup.holding.stop()


async def test_going_to_zero_again_is_another_wake():
    setup = Setup(row())
    asked = setup.ask("one")
    await settle()
    setup.show(row("running", capacity=1))
    await asked
    setup.show(row())
    again = setup.ask("two")
    await settle()
    assert setup.manager.wakes == [PATH, PATH]
    again.cancel()
    await setup.holding.stop()
