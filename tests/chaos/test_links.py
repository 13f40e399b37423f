"""Links between edge and engine are slow or break, and clients leave the queue: no storm of retries, no work for nobody."""

import asyncio
import dataclasses
import time

import pytest
from support.edges import until
from support.nemesis import SlowLink

CHAT = "/endpoints/acme/distant/v1/chat/completions"


async def published(world, endpoint, engine, link, **changes):
    row = endpoint("distant", engine, load_seconds=1.0, **changes)
    await world.publish(dataclasses.replace(row, replicas=(engine.replica(port=link.port),)))
    return await world.key()


async def ask(world, key):
    async with world.post(CHAT, key) as answer:
        await answer.read()
        return answer.status


async def refused(world, key):
    """Whether a request is answered at once, instead of held."""
    asking = asyncio.create_task(ask(world, key))
    done, _ = await asyncio.wait({asking}, timeout=3.5)
    asking.cancel()
    return bool(done)


async def asked(world, key, count):
    return list(await asyncio.gather(*(ask(world, key) for _ in range(count))))


async def test_a_slow_link_costs_its_delay_and_no_request_more(world, engines, endpoint, record):
    """F22: 200 ms each way."""
    engine = await engines()
    with SlowLink(engine.port, delay=0.2) as link:
        key = await published(world, endpoint, engine, link)
        await asked(world, key, 1)
        before, began, statuses = len(engine.seen), time.monotonic(), []
        for _ in range(5):
            statuses += await asked(world, key, 20)
        seconds = (time.monotonic() - began) / 5
        calls = (len(engine.seen) - before) / len(statuses)
    record("F22 failed requests over a link of 200 ms", sum(status != 200 for status in statuses), 0, note=f"of {len(statuses)}")
    record("F22 calls of the engine per request over a link of 200 ms", calls, 1.1)
    record("F22 time of a request over a link of 200 ms each way", seconds, 1.5, unit="s", note="connecting, asking, answering")


@pytest.mark.full
async def test_a_broken_link_is_not_stormed_and_is_used_again_when_it_is_mended(world, engines, endpoint, record):
    """F22: HAProxy's checks are the breaker; requests wait in the gateway while it is open."""
    engine = await engines()
    with SlowLink(engine.port) as link:
        key = await published(world, endpoint, engine, link)
        assert await asked(world, key, 5) == [200] * 5
        link.lost = 1.0
        link.cut()
        async with asyncio.timeout(10):
            while await refused(world, key):  # until the breaker is open, and requests are held instead
                pass
        before = link.connections
        waiting = [asyncio.create_task(ask(world, key)) for _ in range(50)]
        await asyncio.sleep(5)
        tried = link.connections - before
        link.lost = 0.0
        mended = time.monotonic()
        statuses = await asyncio.gather(*waiting)
        seconds = time.monotonic() - mended
        await until(lambda: engine.active == 0)
    record("F22 connections tried in 5 s while 50 requests wait for a broken link", tried, 10, note="a check each second")
    record("F22 requests that waited and failed", sum(status != 200 for status in statuses), 0, note=f"of {len(statuses)}")
    record("F22 time from the link's return to the last of them answered", seconds, 10, unit="s")


async def test_requests_whose_clients_leave_while_they_queue_never_start(world, engines, endpoint, record):
    """F16: one at a time; fifty wait in HAProxy and leave."""
    engine = await engines()
    engine.work = 4.0
    await world.publish(dataclasses.replace(endpoint("distant", engine), replicas=(engine.replica(max_concurrency=1),)))
    key = await world.key()
    first = asyncio.create_task(ask(world, key))
    await until(lambda: engine.active)
    queued = [asyncio.create_task(ask(world, key)) for _ in range(50)]
    await until(lambda: world.manager.reports and world.manager.reports[-1].active.get("acme/distant", 0) == 51)
    for one in queued:
        one.cancel()
    await asyncio.gather(*queued, return_exceptions=True)
    assert await first == 200
    assert await ask(world, key) == 200
    record("F16 requests that started though their client had left the queue", len(engine.seen) - 2, 0, note="of 50")
