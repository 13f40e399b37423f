"""Where replicas wait for their endpoint's adapters: told at once, told again, and never missed."""

import asyncio
import dataclasses

import pytest

from cluster import adapter_desk, adapters, messages, records

ME = messages.ReplicaIdentity("admin--demo-chat--r1", "replica-1")
NOTHING = messages.Adapters()


class Rows:
    def __init__(self):
        self.row = records.Endpoint("e1", "admin", "demo-chat", {"model": {"adapters": []}}, 1)

    def want(self, *names):
        listed = [{"name": name, "repository": f"org/{name}"} for name in names]
        self.row = dataclasses.replace(self.row, spec={"model": {"adapters": listed}})
        return adapters.wanted(self.row)

    def find(self, application):
        return self.row if application == ME.application else None


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
def desk(rows):
    return adapter_desk.Desk(rows.find)


async def asked(desk, seen=NOTHING, hold_s=10.0):
    """A question that waits: the desk has looked and found nothing new."""
    asking = asyncio.create_task(desk.wait(ME, seen, hold_s))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(desk.told, 5)
    return asking


async def test_what_is_new_is_answered_at_once(desk, rows):
    wanted = rows.want("style")
    assert await desk.wait(ME, NOTHING) == wanted


async def test_a_change_answers_those_who_wait(desk, rows):
    asking = await asked(desk)
    wanted = rows.want("style")
    desk.changed("e1")
    assert await asyncio.wait_for(asking, 5) == wanted


async def test_a_change_that_is_none_of_its_business_leaves_it_waiting(desk, rows):
    asking = await asked(desk)
    desk.changed("e1")
    desk.changed("another")
    assert await asyncio.to_thread(desk.told, 5)
    assert not asking.done()
    asking.cancel()


async def test_nothing_new_is_said_after_a_while(desk):
    assert await desk.wait(ME, NOTHING, 0.05) == NOTHING
    assert await desk.wait(dataclasses.replace(ME, application="gone"), NOTHING, 0.05) == NOTHING


async def test_told_means_that_the_replica_came_back_with_what_is_wanted(desk, rows):
    asking = await asked(desk)
    wanted = rows.want("style")
    desk.changed("e1")
    assert await asking == wanted
    assert not await asyncio.to_thread(desk.told, 0)
    again = await asked(desk, wanted)
    assert await asyncio.to_thread(desk.told, 0)
    again.cancel()


async def test_a_replica_that_does_not_come_back_is_not_waited_for(rows):
    now = [100.0]
    desk = adapter_desk.Desk(rows.find, lambda: now[0])
    rows.want("style")
    await desk.wait(ME, NOTHING)
    assert not desk.told(0)
    now[0] += adapter_desk.AWAY_S + 1
    assert desk.told(0)
