"""Every request's line goes from HAProxy through the gateway into the manager's request log, and is found there with how it ended."""

import asyncio
import contextlib
import time

import aiohttp
import pytest
from support.edges import until

from cluster import messages, request_log, request_search, snapshot
from cluster.request_search import Wanted
from gateway import control

CHAT = "/v1/chat/completions"


class Manager(control.ControlTwin):
    """The twin, with the real request log."""

    def __init__(self, folder):
        super().__init__(snapshot.Snapshot(1))
        self.log = request_log.RequestLog(folder, days=30, megabytes=100, clock=time.time)
        self.search = request_search.RequestSearch(folder)

    async def request_lines(self, lines: messages.RequestLines) -> int:
        self._reachable()
        return await asyncio.to_thread(self.log.append, lines)

    def found(self, count, **wanted):
        """All requests, newest first, as soon as there are so many."""
        requests = self.search.search(Wanted(**wanted), 1000).requests
        return requests if len(requests) >= count else None


@pytest.fixture
def manager(tmp_path):
    return Manager(tmp_path / "requests")


async def test_requests_that_ended_in_every_way_are_in_the_log(worlds, engines, endpoint, manager):
    world = await worlds(manager)
    engine = await engines("one")
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    path = f"/endpoints/acme/chat-one{CHAT}"
    async with world.post(path, key) as answer:
        identity = answer.headers["X-Request-Id"]
    async with world.post(path, "moor_p_wrong") as answer:
        refused = answer.headers["X-Request-Id"]
    engine.ticks = 1000
    async with world.post(path, key, {"stream": True}) as answer:
        await answer.content.readany()
    with contextlib.suppress(aiohttp.ClientError):
        async with world.post(path, key, {"stream": True}) as answer:
            await answer.content.readany()
            engine.abort()
            await answer.read()
    with contextlib.suppress(aiohttp.ClientError):
        async with world.post(path, key, {"stream": True}) as answer:
            await answer.content.readany()
            await world.revoke(key)
            await answer.read()

    found = await until(lambda: manager.found(5))
    assert {one.outcome for one in found} == {"finished", "refused", "client_left", "replica_broke", "cut"}
    first = next(one for one in found if one.id == identity)
    assert (first.endpoint, first.server, first.status, first.method, first.path) == ("acme/chat-one", "one-1", 200, "POST", path)
    assert first.key and first.total_s >= first.first_byte_s >= 0
    [one] = manager.found(1, id=refused)
    assert (one.status, one.code, one.server, one.key) == (401, "invalid_api_key", "", "")
    assert manager.found(5, endpoint="acme/chat-one") == found


async def test_a_request_is_in_the_log_however_long_its_path_is(worlds, engines, endpoint, manager):
    """A line that is longer than the ring takes would be cut, and be no line."""
    world = await worlds(manager)
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    told = {}
    for path in (f"/endpoints/acme/chat-one/{'a' * 400}", f"/endpoints/acme/chat-one/{'/' * 8000}", f"/endpoints/{'a' * 9000}/x"):
        async with world.post(path, key) as answer:
            told[answer.headers["X-Request-Id"]] = path[:1400]
    found = await until(lambda: manager.found(3))
    assert {one.id: one.path for one in found} == told


async def test_what_the_slow_path_answered_names_its_replica(worlds, engines, endpoint, manager):
    world = await worlds(manager)
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    async with world.post(CHAT, key, {"model": "chat-one", "messages": [{"content": "x" * 60_000}]}) as answer:
        assert answer.status == 200
    [one] = await until(lambda: manager.found(1))
    assert (one.endpoint, one.server, one.held) == ("acme/chat-one", "one-1", "body")


async def test_requests_while_the_manager_is_away_are_in_the_log_when_it_is_back(worlds, engines, endpoint, manager):
    world = await worlds(manager)
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()

    async def ask(count):
        for _ in range(count):
            async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
                assert answer.status == 200

    await ask(3)
    await until(lambda: manager.found(3))
    manager.leave()
    await ask(4)
    assert len(manager.found(0)) == 3
    manager.come_back()
    found = await until(lambda: manager.found(7))
    assert len({one.id for one in found}) == len(found) == 7


async def test_a_new_gateway_sends_no_line_twice(worlds, engines, endpoint, manager):
    world = await worlds(manager)
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    path = f"/endpoints/acme/chat-one{CHAT}"
    async with world.post(path, key) as answer:
        first = answer.headers["X-Request-Id"]
    await until(lambda: manager.found(1))
    world.running.cancel()
    await asyncio.gather(world.running, return_exceptions=True)
    await world.edge.stop(keep_haproxy=True)
    again = await worlds(manager, port=world.settings.port)

    async def came():
        async with again.post(path, key):
            return [one.id for one in manager.found(2) or ()]

    # HAProxy finds out that the old gateway has gone by a line that it loses.
    found = await until(came)
    assert found.count(first) == 1
    assert len(set(found)) == len(found)


async def test_a_request_that_was_tried_again_at_another_replica_is_in_the_log(worlds, engines, endpoint, manager):
    """HAProxy writes its number of tries with a sign then."""
    world = await worlds(manager)
    one, other = await engines("one"), await engines("two")
    await world.publish(endpoint("chat-one", one, other))
    key = await world.key()
    await one.kill()
    for _ in range(4):
        async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
            assert answer.status == 200
    found = await until(lambda: manager.found(4))
    assert {tried.server for tried in found} == {"two-1"}
    assert max(tried.tries for tried in found) >= 1
