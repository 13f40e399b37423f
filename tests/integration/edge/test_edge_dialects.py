"""Other products' URLs and error shapes, and responses that one replica keeps, through a real HAProxy."""

from __future__ import annotations

import asyncio

import pytest
from support.edges import until

CHAT = "/v1/chat/completions"
HEX = "0" * 32


async def told(call):
    async with call as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/predict/generic/acme/chat-one", "/api/predict/generic"),
        ("/api/predict/generic/stream/acme/chat-one", "/api/predict/generic/stream"),
        ("/api/v2/predict/generic/acme/chat-one", "/api/v2/predict/generic"),
        ("/api/v2/predict/generic/stream/acme/chat-one", "/api/v2/predict/generic/stream"),
        ("/endpoints/acme/chat-one/api/v2/predict/generic/stream", "/api/v2/predict/generic/stream"),
        ("/openai/v1/acme/chat-one/chat/completions", CHAT),
    ],
)
async def test_sambastudios_urls_lead_to_the_endpoint_with_the_header_key(world, engines, endpoint, path, route):
    await world.publish(endpoint("chat-one", await engines("one")))
    status, answer = await told(world.post(path, headers={"key": await world.key("e", endpoint="acme/chat-one")}))
    assert (status, answer["engine"], answer["path"]) == (200, "one", route)
    assert (await told(world.post(path, "nonsense")))[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/api/predict/generic/acme/none",
        "/api/predict/generic/acme",
        "/api/predict/generic/stream/acme/chat-one/more",
        "/api/predict/nlp/acme/chat-one",
        "/api/v3/predict/generic/acme/chat-one",
        "/openai/v1/acme/chat-one/metrics",
        "/openai/v1/acme/chat-one/",
    ],
)
async def test_other_urls_of_that_kind_do_not_exist(world, engines, endpoint, path):
    await world.publish(endpoint("chat-one", await engines("one")))
    status, answer = await told(world.post(path, await world.key()))
    assert status == 404
    assert answer["error"]["message"]


async def test_a_cold_endpoint_wakes_by_its_other_urls_too(world, engines, endpoint):
    await world.publish(endpoint("chat-one"))
    asked = asyncio.create_task(told(world.post("/api/predict/generic/acme/chat-one", await world.key())))
    await until(lambda: world.manager.wakes)
    await world.publish(endpoint("chat-one", await engines("one")))
    status, answer = await asked
    assert (status, answer["path"]) == (200, "/api/predict/generic")


async def test_errors_on_anthropics_routes_have_its_shape(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()), endpoint("chat-two", state="paused"))
    key = await world.key()
    for path in ("/v1/messages", "/endpoints/acme/chat-one/v1/messages", "/endpoints/acme/chat-one/v1/messages/count_tokens"):
        status, answer = await told(world.post(path, headers={"x-api-key": "nonsense"}))
        assert (status, answer["type"], answer["error"]["type"]) == (401, "error", "authentication_error")
    status, answer = await told(world.post("/endpoints/acme/none/v1/messages", headers={"x-api-key": key}))
    assert (status, answer["type"], answer["error"]["type"]) == (404, "error", "not_found_error")
    status, answer = await told(world.post("/v1/messages", key, {"model": "chat-two"}))
    assert (status, answer["type"], answer["error"]["type"]) == (503, "error", "overloaded_error")
    status, answer = await told(world.post("/v1/chat/completions", "nonsense"))
    assert "type" not in answer


@pytest.mark.parametrize("name", ["one", "two"])
async def test_a_kept_response_is_asked_of_the_replica_that_keeps_it(world, engines, endpoint, name):
    await world.publish(endpoint("chat-one", await engines("one"), await engines("two")))
    key, url = await world.key(), "/endpoints/acme/chat-one/v1/responses"
    identity = f"resp_{name}-1_{HEX}"
    found = [await told(world.get(f"{url}/{identity}", key)) for _ in range(4)]
    found += [await told(world.post(f"{url}/{identity}/cancel", key)) for _ in range(4)]
    found += [await told(world.post(url, key, {"input": "x", "previous_response_id": identity})) for _ in range(4)]
    found += [await told(world.post("/v1/responses", key, {"model": "chat-one", "previous_response_id": identity})) for _ in range(4)]
    assert [(status, answer["engine"]) for status, answer in found] == [(200, name)] * 16


@pytest.mark.parametrize("identity", [f"resp_gone-1_{HEX}", f"resp_{HEX}", f"resp_two-1_{HEX[1:]}", "resp_", "x"])
async def test_a_response_that_nobody_keeps_is_asked_of_any_replica(world, engines, endpoint, identity):
    await world.publish(endpoint("chat-one", await engines("one"), await engines("two")))
    key = await world.key()
    found = [await told(world.get(f"/endpoints/acme/chat-one/v1/responses/{identity}", key)) for _ in range(6)]
    assert {answer["engine"] for _, answer in found} == {"one", "two"}
