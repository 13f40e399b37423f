"""Limits of keys and endpoints, queues, and servers that refuse, die or drain."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import time

import aiohttp
import pytest
from support.edges import until

from cluster import snapshot

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"


async def burst(world, key, count, path=CHAT, **options):
    async def one():
        async with world.post(path, key, **options) as answer:
            return answer.status, answer.headers, await answer.json()

    return await asyncio.gather(*(one() for _ in range(count)))


def statuses(answers):
    return dict(collections.Counter(status for status, _, _ in answers))


async def test_requests_per_minute_are_exact_and_told_in_headers(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key(requests_per_minute=10)
    answers = await burst(world, key, 30)
    # The window is the wall clock's minute: a burst across its end may use two budgets.
    assert statuses(answers) in ({200: 10, 429: 20}, {200: 20, 429: 10})
    headers = next(headers for status, headers, _ in answers if status == 429)
    body = next(body for status, _, body in answers if status == 429)
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert (headers["X-RateLimit-Limit-Requests"], headers["X-RateLimit-Remaining-Requests"]) == ("10", "0")


async def test_a_keys_concurrency_is_exact_and_leaks_nothing(world, engines, endpoint):
    engine = await engines()
    engine.work = 0.3
    await world.publish(endpoint("chat-one", engine))
    key, free = await world.key(concurrency=3), await world.key()
    answers = await burst(world, key, 9)
    assert statuses(answers) == {200: 3, 429: 6}
    assert next(body for status, _, body in answers if status == 429)["error"]["code"] == "concurrency_limit"
    assert statuses(await burst(world, free, 9)) == {200: 9}
    engine.work = 0
    for _ in range(20):
        assert statuses(await burst(world, key, 1)) == {200: 1}


async def test_an_endpoints_concurrency_caps_running_and_waiting(world, engines, endpoint):
    engine = await engines()
    engine.work = 0.3
    row = endpoint("chat-one", engine, max_concurrency=4)
    await world.publish(dataclasses.replace(row, replicas=(engine.replica(max_concurrency=2),)))
    answers = await burst(world, await world.key(), 12)
    assert statuses(answers) == {200: 4, 429: 8}
    _, headers, body = next(answer for answer in answers if answer[0] == 429)
    assert body["error"]["code"] == "queue_full"
    assert headers["Retry-After"] == "1"
    assert engine.peak == 2


async def test_waiting_for_a_replica_ends_in_503_unavailable(worlds, engines, endpoint):
    world = await worlds(queue_timeout=1)
    engine = await engines()
    engine.work = 2.0
    await world.publish(dataclasses.replace(endpoint("chat-one", engine), replicas=(engine.replica(max_concurrency=2),)))
    answers = await burst(world, await world.key(), 5)
    assert statuses(answers) == {200: 2, 503: 3}
    _, headers, body = next(answer for answer in answers if answer[0] == 503)
    assert (body["error"]["code"], body["error"]["type"]) == ("unavailable", "service_unavailable_error")
    assert headers["Retry-After"]
    assert headers["X-Request-Id"]
    async with asyncio.timeout(10):
        hugging_face = await burst(world, await world.key(), 3, path="/endpoints/acme/chat-one/generate")
    assert {body.get("error_type") for status, _, body in hugging_face if status == 503} == {"unavailable"}


async def test_a_refused_connection_is_tried_on_another_replica(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    await world.publish(endpoint("chat-one", one, two))
    await one.kill()
    answers = await burst(world, await world.key(), 12)
    assert statuses(answers) == {200: 12}
    assert {body["engine"] for _, _, body in answers} == {"two"}


async def test_a_request_whose_engine_dies_before_it_answers_is_tried_on_another(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    one.work = two.work = 1.0
    await world.publish(endpoint("chat-one", one, two))
    asked = asyncio.create_task(burst(world, await world.key(), 1))
    taker = await until(lambda: next((engine for engine in (one, two) if engine.seen), None), 5)
    taker.abort()
    ((status, _, body),) = await asked
    assert (status, len(one.seen), len(two.seen)) == (200, 1, 1)
    assert body["engine"] != taker.name


async def test_a_request_that_kills_every_engine_is_given_up_after_three(world, engines, endpoint):
    fleet = [await engines(f"engine-{number}") for number in range(5)]
    for engine in fleet:
        engine.work = 5.0
    await world.publish(endpoint("chat-one", *fleet))
    asked = asyncio.create_task(burst(world, await world.key(), 1))
    killed = 0
    while not asked.done():
        for engine in fleet:
            if engine.active:
                killed += 1
                engine.abort()
        await asyncio.sleep(0.01)
    ((status, headers, body),) = await asked
    assert (status, body["error"]["code"]) == (502, "unavailable")
    assert headers["X-Request-Id"]
    assert killed == 3 == sum(len(engine.seen) for engine in fleet)


@pytest.mark.parametrize(("retry_connections", "status", "tried"), [(1000, 200, 2), (0, 502, 1)])
async def test_a_request_that_breaks_is_tried_again_while_few_are_connected(worlds, engines, endpoint, retry_connections, status, tried):
    world = await worlds(retry_connections=retry_connections)
    fleet = [await engines(name) for name in ("one", "two")]
    for engine in fleet:
        engine.work = 30.0
    await world.publish(endpoint("chat-one", *fleet))
    asked = asyncio.create_task(burst(world, await world.key(), 1))
    await until(lambda: sum(engine.active for engine in fleet))
    first, other = sorted(fleet, key=lambda engine: -engine.active)
    other.work = 0.0
    first.abort()
    assert (await asked)[0][0] == status
    assert len(first.seen) + len(other.seen) == tried


async def test_requests_go_to_the_replica_that_has_the_fewest(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    one.ticks = two.ticks = 40
    await world.publish(endpoint("chat-one", one))
    key = await world.key()
    async with world.post(CHAT, key, {"stream": True}) as stream:
        await stream.content.readline()
        await world.publish(endpoint("chat-one", one, two))
        found = collections.Counter()
        for _ in range(10):
            found[(await burst(world, key, 1))[0][2]["engine"]] += 1
        assert found == {"two": 10}


async def test_a_draining_replica_finishes_its_stream_and_gets_nothing_new(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    one.ticks = two.ticks = 40
    await world.publish(endpoint("chat-one", one))
    key = await world.key()
    async with world.post(CHAT, key, {"stream": True}) as stream:
        await stream.content.readline()
        await world.publish(dataclasses.replace(endpoint("chat-one", one, two), replicas=(one.replica(draining=True), two.replica())))
        assert {body["engine"] for _, _, body in await burst(world, key, 6)} == {"two"}
        await world.publish(endpoint("chat-one", two))
        assert {body["engine"] for _, _, body in await burst(world, key, 6)} == {"two"}
        rest = await stream.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert rest.count(b"data:") == 40


async def test_a_server_that_left_is_deleted_when_its_streams_have_ended(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    one.ticks = 100
    await world.publish(endpoint("chat-one", one))
    async with world.post(CHAT, await world.key(), {"stream": True}) as stream:
        await stream.content.readline()
        await world.publish(endpoint("chat-one", two))
        await asyncio.sleep(1.3)  # the tending period has passed: it must not have cut the stream
        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
    await until(lambda: servers_without(world, "one-1"), 15)


async def test_health_404_drains_a_server(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    await world.publish(endpoint("chat-one", one, two))
    key = await world.key()
    one.health = 404
    await until(lambda: stopping(world, "one-1"))
    assert {body["engine"] for _, _, body in await burst(world, key, 6)} == {"two"}


async def stopping(world, server):
    """Whether HAProxy has the server in the operational state `stopping` (3)."""
    text = await world.edge._haproxy.runtime.ask("show servers state")
    return any(line.split()[3] == server and line.split()[5] == "3" for line in text.splitlines()[2:] if line)


async def servers_without(world, server):
    return server not in await world.edge._haproxy.runtime.ask("show servers state")


async def test_websockets_pass(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    headers = {"Authorization": f"Bearer {key}"}
    for url in ("/endpoints/acme/chat-one/v1/realtime", "/v1/realtime?model=chat-one"):
        async with world.client.ws_connect(world.url + url, headers=headers) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=5) == "one: hello"


async def test_slow_headers_are_closed(worlds):
    world = await worlds(header_timeout=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert b" 408 " in answer.splitlines()[0]
    writer.close()
    await writer.wait_closed()


async def test_streams_come_token_by_token(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 5, 0.1
    await world.publish(endpoint("chat-one", engine))
    loop = asyncio.get_running_loop()
    times = []
    async with world.post(CHAT, await world.key(), {"stream": True}) as stream:
        async for line in stream.content:
            if line.startswith(b"data:"):
                times.append(loop.time())
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == 6
    assert min(gaps[:4]) > 0.05


async def test_an_engine_that_dies_mid_stream_breaks_the_stream_visibly(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 1000
    await world.publish(endpoint("chat-one", engine))
    received = b""
    broken = False
    async with world.post(CHAT, await world.key(), {"stream": True}) as stream:
        received += await stream.content.readline()
        await engine.kill()
        try:
            received += await stream.content.read()
        except aiohttp.ClientPayloadError:
            broken = True
    assert broken
    assert b"[DONE]" not in received


async def test_a_client_that_leaves_frees_the_engine(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 1000
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    stream = await world.post(CHAT, key, {"stream": True})
    await stream.content.readline()
    engine.work = 30.0
    waiting = asyncio.create_task(burst(world, key, 1))
    await until(lambda: engine.active == 2, 5)
    stream.close()
    waiting.cancel()
    await until(lambda: not engine.active, 1.0)


async def test_a_revoked_key_is_refused_and_its_streams_are_cut(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 150
    await world.publish(endpoint("chat-one", engine))
    key, other = await world.key(), await world.key()
    loop = asyncio.get_running_loop()

    async def listen(key):
        try:
            async with world.post(CHAT, key, {"stream": True}) as stream:
                return (await stream.content.read()).endswith(b"[DONE]\n\n"), loop.time()
        except aiohttp.ClientError:
            return False, loop.time()

    streams = [asyncio.create_task(listen(key)) for _ in range(5)]
    kept = [asyncio.create_task(listen(other)) for _ in range(2)]
    await until(lambda: engine.active == 7, 5)
    start = loop.time()
    await world.revoke(key)
    async with world.post(CHAT, key) as answer:
        assert answer.status == 401
    cut = await asyncio.gather(*streams)
    assert [done for done, _ in cut] == [False] * 5
    assert max(at for _, at in cut) - start < 2.0
    assert [done for done, _ in await asyncio.gather(*kept)] == [True] * 2


def whole(answers, limit, asked):
    """Whether just `limit` of `asked` were let in: the window is the wall clock's minute, and a burst across its end may use two."""
    return statuses(answers) in ({200: limit, 429: asked - limit}, {200: min(asked, 2 * limit), 429: asked - 2 * limit})


async def test_an_endpoints_requests_per_minute_are_counted_over_keys_members_and_adapters(world, engines, endpoint):
    engine = await engines()
    team = endpoint(
        "chat-one",
        members=(snapshot.Member("big"), snapshot.Member("small")),
        replicas=tuple(engine.replica(id=name, member=name) for name in ("big", "small")),
        requests_per_minute=6,
    )
    await world.publish(team, endpoint("tuned", engine, adapters=("legal",), requests_per_minute=4))
    key, other = await world.key(), await world.key()
    asked = [({"model": "chat-one:big"}, key), ({"model": "chat-one:small"}, other), ({"model": "chat-one"}, key)] * 5
    answers = await asyncio.gather(*(one(world, who, body) for body, who in asked))
    assert whole(answers, 6, 15)
    _, headers, body = next(answer for answer in answers if answer[0] == 429)
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert body["error"]["message"] == "This endpoint takes 6 requests a minute, of all keys together."
    assert (headers["X-RateLimit-Limit-Requests"], headers["X-RateLimit-Remaining-Requests"]) == ("6", "0")
    assert 1 <= int(headers["Retry-After"]) <= 60
    answers = await asyncio.gather(*(one(world, key, {"model": model}) for model in ("tuned", "tuned:legal") * 5))
    assert whole(answers, 4, 10)


async def one(world, key, body, path="/v1/chat/completions", **options):
    async with world.post(path, key, body, **options) as answer:
        return answer.status, answer.headers, await answer.json()


async def test_answers_tell_of_the_nearer_limit(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine, requests_per_minute=20), endpoint("free", engine))
    small, large, none = await world.key(requests_per_minute=10), await world.key(requests_per_minute=90), await world.key()
    names = "X-RateLimit-Limit-Requests", "X-RateLimit-Remaining-Requests"
    minute = time.time() // 60
    headers = [(await burst(world, key, 1))[0][1] for key in (small, large, none)]
    found = [tuple(row.get(name) for name in names) for row in headers]
    unlimited = (await one(world, none, {"model": "free"}))[1]
    if time.time() // 60 == minute:
        assert found == [("10", "9"), ("20", "18"), ("20", "17")]
    assert not [name for name in names if name in unlimited]
    assert (await burst(world, small, 1))[0][1]["X-RateLimit-Reset-Requests"].endswith("s")


async def test_an_endpoints_own_concurrency_counts_streams_to_their_end_and_what_is_held(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 2000, 0.05
    await world.publish(endpoint("chat-one", concurrency=3))
    key, other = await world.key(), await world.key()
    held = [asyncio.create_task(world.post(CHAT, one, {"stream": True}).__aenter__()) for one in (key, other)]
    await until(lambda: world.edge._holding.held() == {"acme/chat-one": 2})
    await world.publish(endpoint("chat-one", engine, concurrency=3))
    streams = [await task for task in held]
    await until(lambda: engine.active == 2)
    streams.append(await world.post(CHAT, key, {"stream": True}))
    assert streams[-1].status == 200
    answers = await burst(world, other, 4)
    assert statuses(answers) == {429: 4}
    _, headers, body = answers[0]
    assert body["error"]["code"] == "concurrency_limit"
    assert body["error"]["message"] == "This endpoint takes 3 requests at the same time, of all keys together."
    assert headers["Retry-After"] == "1"
    streams.pop().close()
    engine.ticks = 1

    async def let_in():
        return statuses(await burst(world, other, 1)) == {200: 1}

    await until(let_in, 5)
    for stream in streams:
        stream.close()


async def test_held_requests_fill_an_endpoints_and_a_keys_concurrency(world, engines, endpoint):
    await world.publish(endpoint("chat-one", concurrency=2), endpoint("other-one"))
    key, narrow = await world.key(), await world.key(concurrency=1)
    held = [asyncio.create_task(burst(world, key, 1)) for _ in range(2)]
    held.append(asyncio.create_task(burst(world, narrow, 1, path="/endpoints/acme/other-one/v1/chat/completions")))
    await until(lambda: world.edge._holding.held() == {"acme/chat-one": 2, "acme/other-one": 1})
    assert (await burst(world, key, 1))[0][2]["error"]["message"].startswith("This endpoint takes 2 ")
    refused = (await one(world, narrow, {"model": "other-one"}))[2]
    assert refused["error"]["message"] == "This key may have 1 requests at the same time."
    engine = await engines()
    await world.publish(endpoint("chat-one", engine, concurrency=2), endpoint("other-one", engine))
    assert [statuses(answers) for answers in await asyncio.gather(*held)] == [{200: 1}] * 3


async def test_a_large_body_that_names_its_endpoint_is_counted_once_for_key_and_endpoint(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine, requests_per_minute=4))
    key = await world.key(requests_per_minute=50)
    body = {"model": "chat-one", "x": "x" * 30_000}
    answers = await asyncio.gather(*(one(world, key, body) for _ in range(9)))
    assert whole(answers, 4, 9)
    _, headers, refused = next(answer for answer in answers if answer[0] == 429)
    assert refused["error"]["message"].startswith("This endpoint takes 4 requests a minute")
    assert headers["X-RateLimit-Limit-Requests"] == "4"
    await world.publish(endpoint("chat-one", engine, concurrency=2))
    engine.work = 0.5
    assert statuses(await asyncio.gather(*(one(world, key, body) for _ in range(6)))) == {200: 2, 429: 4}


async def test_what_is_refused_counts_against_nothing(world, engines, endpoint):
    engine = await engines()
    engine.work = 0.3
    await world.publish(
        endpoint("narrow", engine, concurrency=1), endpoint("rare", engine, requests_per_minute=1), endpoint("chat-one", engine)
    )
    key = await world.key(requests_per_minute=1000)
    spent = 0
    minute = time.time() // 60
    for name, accepted in (("narrow", 1), ("rare", 1)):
        answers = await burst(world, key, 8, path=f"/endpoints/acme/{name}/v1/chat/completions")
        assert statuses(answers).get(200, 0) in (accepted, accepted + 1)
        spent += statuses(answers).get(200, 0)
    left = int((await burst(world, key, 1))[0][1]["X-RateLimit-Remaining-Requests"])
    if time.time() // 60 == minute:
        assert left == 1000 - spent - 1


async def test_a_refusal_for_concurrency_tells_what_is_left_of_the_minute(world, engines, endpoint):
    engine = await engines()
    engine.work = 0.5
    await world.publish(endpoint("chat-one", engine))
    key = await world.key(requests_per_minute=100, concurrency=1)
    answers = await burst(world, key, 4)
    assert statuses(answers) == {200: 1, 429: 3}
    refused = next(headers for status, headers, _ in answers if status == 429)
    assert (refused["X-RateLimit-Limit-Requests"], int(refused["X-RateLimit-Remaining-Requests"]) >= 99) == ("100", True)


async def test_asking_after_an_endpoints_state_uses_none_of_its_own_limit(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines(), requests_per_minute=2))
    key = await world.key()
    for path in ("health", "v1/models") * 3:
        async with world.get(f"/endpoints/acme/chat-one/{path}", key) as answer:
            assert answer.status == 200
    assert statuses(await burst(world, key, 2)) == {200: 2}
