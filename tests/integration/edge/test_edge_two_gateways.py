"""Two gateways of one manager: limits over both, and keys that are revoked under load and never come back."""

from __future__ import annotations

import asyncio
import collections
import itertools
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from cluster import keys
from gateway import config, haproxy

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"


@pytest.fixture
def homes():
    folders = [Path(tempfile.mkdtemp(prefix="moor-")) for _ in range(2)]
    yield folders
    for folder in folders:
        haproxy.stop_running(config.EdgeFiles(folder), grace=0)
        shutil.rmtree(folder)


@pytest.fixture
async def pair(homes, worlds):  # in this order: the edges end before their folders
    """Two edges that follow one manager, which knows of both."""
    one = await worlds(home=homes[0], name="one")
    two = await worlds(one.manager, home=homes[1], name="two")
    await both(one, two, one.change(gateways=("one", "two")))
    return one, two


async def both(one, two, change):
    await change
    await one.caught_up()
    await two.caught_up()


async def asked(pair, key, each, **options):
    """`each` requests at once to each gateway; how many got which status from whom."""

    async def ask(number, world):
        async with world.post(CHAT, key, **options) as answer:
            await answer.read()
            return number, answer.status

    work = [ask(number, world) for _ in range(each) for number, world in enumerate(pair)]
    return collections.Counter(await asyncio.gather(*work))


async def start_of_a_minute(seconds):
    """Waits until at least so many seconds of the wall clock's minute are left."""
    if (left := 60 - time.time() % 60) < seconds:
        await asyncio.sleep(left + 0.05)


@pytest.mark.parametrize("whose", ["key", "endpoint"])
@pytest.mark.parametrize("limit", [5, 10, 31])
async def test_requests_per_minute_are_those_of_both_together(pair, engines, endpoint, whose, limit):
    fields = {"requests_per_minute": limit}
    await both(*pair, pair[0].publish(endpoint("chat-one", await engines(), **(fields if whose == "endpoint" else {}))))
    key = await pair[0].key(**(fields if whose == "key" else {}))
    await pair[1].caught_up()
    await start_of_a_minute(8)
    found = [await asked(pair, key, 10) for _ in range(4)]
    accepted = sum(count for counter in found for (_, status), count in counter.items() if status == 200)
    assert limit <= accepted <= limit + 2


@pytest.mark.parametrize("whose", ["key", "endpoint"])
async def test_concurrency_is_that_of_both_together(pair, engines, endpoint, whose):
    engine = await engines()
    engine.work = 1.0
    fields = {"concurrency": 7}
    await both(*pair, pair[0].publish(endpoint("chat-one", engine, **(fields if whose == "endpoint" else {}))))
    key = await pair[0].key(**(fields if whose == "key" else {}))
    await pair[1].caught_up()
    found = await asked(pair, key, 10)
    assert 7 <= found[0, 200] + found[1, 200] <= 9
    assert engine.peak <= 9
    engine.work = 0
    assert (await asked(pair, key, 3))[0, 200] == 3


async def test_a_refusal_names_the_whole_limit(pair, engines, endpoint):
    await both(*pair, pair[0].publish(endpoint("chat-one", await engines())))
    key = await pair[0].key(requests_per_minute=2)
    await pair[1].caught_up()
    await start_of_a_minute(5)
    for _ in range(2):
        async with pair[1].post(CHAT, key) as answer:
            last = await answer.json()
    assert last["error"]["message"] == "This key may make 2 requests a minute."


async def test_when_one_goes_the_other_has_the_whole_limit_and_none_begins_with_it_alone(pair, engines, endpoint):
    one, two = pair
    engine = await engines()
    engine.work = 0.5
    await both(one, two, one.publish(endpoint("chat-one", engine)))
    key = await one.key(concurrency=4)
    await both(one, two, one.change(gateways=("one",)))
    assert (await asked([one], key, 8))[0, 200] == 4
    assert (await asked([two], key, 8))[0, 200] == 2, "a gateway that the manager does not know yet counts itself"
    await both(one, two, one.change(gateways=()))
    assert (await asked([one], key, 8))[0, 200] == 4, "a manager that knows of none has just started: what was known holds"


@pytest.mark.parametrize("rounds", [50, pytest.param(200, marks=pytest.mark.full)])
async def test_a_revoked_key_never_works_again_at_either(pair, engines, endpoint, rounds):
    """Under load on both, again and again: after the change is in force not one request more is let in."""
    one, two = pair
    engine = await engines()
    await both(one, two, one.publish(endpoint("chat-one", engine)))
    stop, late, served = asyncio.Event(), [], itertools.count()
    current: dict[str, str] = {}
    revoked: dict[str, float] = {}

    async def load(world):
        while not stop.is_set():
            await asyncio.sleep(0)
            key = current.get("key")
            gone = [*revoked][-3:]
            for given in ([key] if key else []) + gone:
                sent = time.monotonic()
                async with world.post(CHAT, given) as answer:
                    await answer.read()
                    if answer.status == 200:
                        next(served)
                    if answer.status == 200 and sent > revoked.get(given, sent + 1):
                        late.append(given)

    work = [asyncio.create_task(load(world)) for world in (one, two, one, two)]
    slowest = 0.0
    for _ in range(rounds):
        current["key"] = await one.key()
        await two.caught_up()
        await asyncio.sleep(0.02)
        start = time.monotonic()
        await both(one, two, one.revoke(current["key"]))
        revoked[current["key"]] = time.monotonic()
        slowest = max(slowest, time.monotonic() - start)
    stop.set()
    await asyncio.gather(*work)
    assert late == []
    assert next(served) > rounds
    assert slowest < 1.0
    for world, key in itertools.product(pair, revoked):
        async with world.post(CHAT, key) as answer:
            assert answer.status == 401
    assert not one.manager.now.keys
    assert keys.digest(current["key"]) not in one.edge._programmer._key_map


async def test_streams_of_a_revoked_key_are_cut_at_both(pair, engines, endpoint):
    one, two = pair
    engine = await engines()
    engine.ticks, engine.pause = 2000, 0.05
    await both(one, two, one.publish(endpoint("chat-one", engine)))
    key = await one.key()
    await two.caught_up()
    streams = [await world.post(CHAT, key, {"stream": True}) for world in pair for _ in range(3)]
    for stream in streams:
        await stream.content.readline()
    start = time.monotonic()
    await both(one, two, one.revoke(key))
    ended = await asyncio.gather(*(stream.content.read() for stream in streams), return_exceptions=True)
    assert all(isinstance(end, Exception) for end in ended)
    assert time.monotonic() - start < 5
    for stream in streams:
        stream.close()
