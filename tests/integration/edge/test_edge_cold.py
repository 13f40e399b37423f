"""Endpoints without a ready replica: held and woken once, or told at once why not."""

from __future__ import annotations

import asyncio
import collections
import dataclasses

import aiohttp
import pytest
from support.edges import until

from cluster import keys
from gateway import control

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"


async def ask(world, key, path=CHAT, body=None, **headers):
    async with world.post(path, key, body, headers=headers) as answer:
        return answer.status, answer.headers, await answer.json()


async def held(world, count):
    await until(lambda: world.edge._holding.held().get("acme/chat-one", 0) == count, 10)


async def test_a_burst_at_zero_is_answered_whole_with_one_wake_and_no_faster_than_the_replica_takes_it(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    key = await world.key()
    asked = [asyncio.create_task(ask(world, key)) for _ in range(100)]
    await held(world, 100)
    await until(lambda: world.manager.wakes == ["acme/chat-one"], 10)
    engine = await engines("woken")
    engine.work = 0.02
    await world.publish(endpoint("chat-one", state="initializing"))
    await world.publish(dataclasses.replace(endpoint("chat-one", engine), replicas=(engine.replica(max_concurrency=8),)))
    answers = await asyncio.gather(*asked)
    assert collections.Counter(status for status, _, _ in answers) == {200: 100}
    assert world.manager.wakes == ["acme/chat-one"]
    assert engine.peak <= 8


async def test_beyond_the_bound_a_burst_is_told_503_starting_at_once(world, engines, endpoint):
    await world.publish(endpoint("chat-one", max_queue=20, load_seconds=40.0))
    key = await world.key()
    asked = [asyncio.create_task(ask(world, key)) for _ in range(100)]
    await held(world, 20)
    await until(lambda: sum(task.done() for task in asked) == 80, 5)
    refused = [task.result() for task in asked if task.done()]
    assert {(status, body["error"]["code"]) for status, _, body in refused} == {(503, "starting")}
    assert all(30 <= int(headers["Retry-After"]) <= 40 and headers["X-Request-Id"] for _, headers, _ in refused)
    await world.publish(endpoint("chat-one", await engines()))
    answers = await asyncio.gather(*asked)
    assert collections.Counter(status for status, _, _ in answers) == {200: 20, 503: 80}
    assert world.manager.wakes == ["acme/chat-one"]


@pytest.mark.parametrize(
    ("fields", "code", "retry"),
    [
        ({"state": "paused"}, "paused", False),
        ({"state": "failed", "message": "The weights do not fit."}, "failed", False),
        ({"state": "pending", "reason": "AwaitingResources", "message": "Needs 2 GPUs, 1 is free."}, "awaiting_resources", True),
    ],
)
async def test_states_that_waiting_does_not_mend_are_told_at_once(world, endpoint, fields, code, retry):
    await world.publish(endpoint("chat-one", **fields))
    key = await world.key()
    status, headers, body = await ask(world, key)
    assert (status, body["error"]["code"]) == (503, code)
    assert ("Retry-After" in headers) == retry
    assert fields.get("message", "") in body["error"]["message"]
    status, headers, body = await ask(world, key, "/endpoints/acme/chat-one/generate")
    assert (status, body["error_type"], headers["X-Error-Code"]) == (503, code, code)
    assert world.manager.wakes == []


async def test_a_state_that_turns_bad_ends_the_wait(world, endpoint):
    await world.publish(endpoint("chat-one", state="initializing"))
    asked = asyncio.create_task(ask(world, await world.key()))
    await held(world, 1)
    await world.publish(endpoint("chat-one", state="failed", message="Out of memory."))
    status, _, body = await asked
    assert (status, body["error"]["code"], body["error"]["message"]) == (503, "failed", "Out of memory.")
    assert world.manager.wakes == []


async def test_x_scale_up_timeout_bounds_the_wait(world, endpoint):
    await world.publish(endpoint("chat-one", load_seconds=7.0))
    key = await world.key()
    loop = asyncio.get_running_loop()
    for seconds, low, high in (("0", 0.0, 0.5), ("0.6", 0.6, 2.0)):
        start = loop.time()
        status, headers, body = await ask(world, key, **{"X-Scale-Up-Timeout": seconds})
        assert (status, body["error"]["code"]) == (503, "starting")
        assert low <= loop.time() - start < high
        assert 5 <= int(headers["Retry-After"]) <= 7
    assert world.manager.wakes[0] == "acme/chat-one"
    for wrong in ("soon", "-1", "nan", "inf"):
        status, _, body = await ask(world, key, **{"X-Scale-Up-Timeout": wrong})
        assert (status, body["error"]["param"]) == (400, "X-Scale-Up-Timeout")


async def test_the_endpoints_own_bound_ends_the_wait(world, endpoint):
    await world.publish(endpoint("chat-one", hold_timeout_s=0.3))
    key = await world.key()
    status, _, body = await ask(world, key)
    assert (status, body["error"]["code"]) == (503, "starting")
    status, _, body = await ask(world, key, **{"X-Scale-Up-Timeout": "60"})
    assert (status, body["error"]["code"]) == (503, "starting")


async def test_asking_for_health_or_models_wakes_nothing(world, endpoint):
    await world.publish(endpoint("chat-one"))
    key = await world.key()
    async with world.get("/endpoints/acme/chat-one/health", key) as answer:
        assert (answer.status, (await answer.json())["error_type"]) == (503, "starting")
    async with world.get("/endpoints/acme/chat-one/v1/models", key) as answer:
        assert (answer.status, (await answer.json())["data"][0]["state"]) == (200, "scaledToZero")
    assert world.manager.wakes == []
    assert all(not report.requests for report in world.manager.reports)


TALK = "/endpoints/acme/chat-one/v1/realtime"


async def refused(world, key, path=TALK, **headers):
    """The status of a handshake that is not accepted, and its headers."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await world.client.ws_connect(world.url + path, headers={"Authorization": f"Bearer {key}", **headers})
    return refusal.value.status, refusal.value.headers


@pytest.mark.parametrize("path", [TALK, "/v1/realtime?model=chat-one"], ids=["its own URL", "the shared URL"])
async def test_a_websocket_is_held_while_the_endpoint_wakes_and_then_opened(world, engines, endpoint, path):
    await world.publish(endpoint("chat-one"))
    headers = {"Authorization": f"Bearer {await world.key()}", "X-Own": "kept"}
    opening = asyncio.create_task(world.client.ws_connect(world.url + path, headers=headers, protocols=("spoken",)))
    await held(world, 1)
    assert world.manager.wakes == ["acme/chat-one"]
    engine = await engines("woken")
    await world.publish(endpoint("chat-one", engine))
    socket = await asyncio.wait_for(opening, 10)
    assert socket.protocol == "spoken"
    for word in ("hello", "again", "x" * 100_000):
        await socket.send_str(word)
        assert await socket.receive_str(timeout=5) == f"woken: {word}"
    await socket.send_str("close 4001 enough said")
    assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code == 4001
    [seen] = engine.seen
    assert (seen.path, seen.headers["X-Own"], seen.headers["X-Request-Id"]) == (
        "/v1/realtime",
        "kept",
        socket._response.headers["X-Request-Id"],
    )
    assert not [name for name in seen.headers if name.lower().startswith("x-edge")]


async def test_a_held_websocket_that_its_client_closes_or_leaves_ends_for_the_engine_too(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    headers = {"Authorization": f"Bearer {await world.key()}"}
    opening = [asyncio.create_task(world.client.ws_connect(world.url + TALK, headers=headers)) for _ in range(2)]
    await held(world, 2)
    engine = await engines("woken")
    await world.publish(endpoint("chat-one", engine))
    closes, leaves = await asyncio.gather(*opening)
    await closes.send_str("hello")
    await closes.receive_str(timeout=5)
    await closes.close(code=4002)
    await until(lambda: engine.closed == [4002], 5)
    await leaves.send_str("hello")
    await leaves.receive_str(timeout=5)
    leaves._response.connection.transport.abort()
    await until(lambda: engine.active == 0, 5)
    assert engine.closed in ([4002, None], [4002, 1006])


async def test_a_client_that_leaves_while_its_websocket_is_held_is_forgotten(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    headers = {"Authorization": f"Bearer {await world.key()}"}
    opening = asyncio.create_task(world.client.ws_connect(world.url + TALK, headers=headers))
    await held(world, 1)
    opening.cancel()
    await held(world, 0)


async def test_a_websocket_that_breaks_in_the_engine_never_looks_closed(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    headers = {"Authorization": f"Bearer {await world.key()}"}
    opening = asyncio.create_task(world.client.ws_connect(world.url + TALK, headers=headers))
    await held(world, 1)
    engine = await engines("woken")
    await world.publish(endpoint("chat-one", engine))
    socket = await opening
    await socket.send_str("hello")
    await socket.receive_str(timeout=5)
    engine.abort()
    await socket.receive(timeout=5)
    assert socket.close_code in (1006, 1011)


async def test_a_handshake_that_cannot_be_held_is_told_why(world, engines, endpoint):
    await world.publish(endpoint("chat-one", load_seconds=7.0))
    key = await world.key()
    status, headers = await refused(world, key, **{"X-Scale-Up-Timeout": "0"})
    assert (status, headers["X-Error-Code"]) == (503, "starting")
    assert 5 <= int(headers["Retry-After"]) <= 7
    assert (await refused(world, key, **{"X-Scale-Up-Timeout": "soon"}))[0] == 400
    opening = asyncio.create_task(refused(world, key))
    await held(world, 1)
    engine = await engines("woken")
    engine.sockets = False
    await world.publish(endpoint("chat-one", engine))
    assert (await asyncio.wait_for(opening, 10))[0] == 404
    await world.publish(endpoint("chat-one", state="failed", message="Out of memory."))
    status, headers = await refused(world, key)
    assert (status, headers["X-Error-Code"]) == (503, "failed")
    assert (await refused(world, "moor_e_wrong"))[0] == 401


async def test_shared_routes_wake_by_model_with_small_and_large_bodies(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    key = await world.key()
    bodies = [{"model": "chat-one", "messages": ["x" * size]} for size in (10, 100_000)]
    asked = [asyncio.create_task(ask(world, key, "/v1/chat/completions", body)) for body in bodies]
    await held(world, 2)
    await world.publish(endpoint("chat-one", await engines()))
    assert [(status, body["path"]) for status, _, body in await asyncio.gather(*asked)] == [(200, "/v1/chat/completions")] * 2
    assert world.manager.wakes == ["acme/chat-one"]


async def test_the_default_route_is_kept_across_the_wait(world, engines, endpoint):
    await world.publish(endpoint("chat-one", default_route="/v1/embeddings"))
    asked = asyncio.create_task(ask(world, await world.key(), "/endpoints/acme/chat-one/predict?a=b%20c"))
    await held(world, 1)
    await world.publish(endpoint("chat-one", await engines(), default_route="/v1/embeddings"))
    status, _, body = await asked
    assert (status, body["path"], body["query"]) == (200, "/v1/embeddings", "a=b%20c")


async def test_without_access_nothing_is_woken(world, endpoint):
    await world.publish(endpoint("chat-one"))
    other = await world.key(namespace="globex")
    for path, size in ((CHAT, 10), ("/v1/chat/completions", 10), ("/v1/chat/completions", 100_000)):
        assert (await ask(world, other, path, {"model": "acme/chat-one", "messages": "x" * size}))[0] == 404
        assert (await ask(world, None, path, {"model": "acme/chat-one", "messages": "x" * size}))[0] == 401
    assert world.manager.wakes == []


async def test_a_key_revoked_while_its_request_is_held_gets_no_answer_from_the_engine(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one"))
    key = await world.key()
    asked = asyncio.create_task(ask(world, key))
    await held(world, 1)
    await world.revoke(key)
    await world.publish(endpoint("chat-one", engine))
    assert (await asked)[0] in (401, 502)
    assert engine.seen == []


async def test_a_client_that_leaves_gives_its_place_back(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 1000
    await world.publish(endpoint("chat-one", max_queue=1))
    key = await world.key()
    asked = asyncio.create_task(ask(world, key))
    await held(world, 1)
    asked.cancel()
    await held(world, 0)
    stream = asyncio.create_task(world.post(CHAT, key, {"stream": True}).__aenter__())
    await held(world, 1)
    await world.publish(endpoint("chat-one", engine))
    answer = await stream
    await answer.content.readline()
    answer.close()
    await until(lambda: not engine.active, 1.0)


async def test_a_stream_relayed_after_the_wait_breaks_visibly_when_its_engine_dies(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 1000
    await world.publish(endpoint("chat-one"))
    stream = asyncio.create_task(world.post(CHAT, await world.key(), {"stream": True}).__aenter__())
    await held(world, 1)
    await world.publish(endpoint("chat-one", engine))
    answer = await stream
    await answer.content.readline()
    await engine.kill()
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.content.read()
    answer.close()


async def test_a_wake_that_fails_is_tried_again(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    key = await world.key()
    failed = []
    wake = world.manager.wake

    async def failing(path):
        if len(failed) < 2:
            failed.append(path)
            raise control.ControlLost
        await wake(path)

    world.manager.wake = failing
    asked = asyncio.create_task(ask(world, key))
    await until(lambda: world.manager.wakes, 5)
    await world.publish(endpoint("chat-one", await engines()))
    assert (await asked)[0] == 200
    assert len(failed) == 2


async def test_replicas_that_all_died_make_requests_wait_until_one_answers_again(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    port = engine.port
    await engine.kill()
    await until(lambda: down(world), 10)
    asked = asyncio.create_task(ask(world, key))
    await until(lambda: running(world, key))
    engine.port = port
    await engine.start()
    assert (await asked)[0] == 200


async def running(world, key):
    count = (await world.edge._haproxy.runtime.counts("st_key")).get(keys.key_id(key))
    return count and count.running


async def down(world):
    text = await world.edge._haproxy.runtime.ask("show servers state")
    return any(line.split()[5] == "0" for line in text.splitlines()[2:] if line)
