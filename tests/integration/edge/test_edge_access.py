"""Keys, access, routes and headers through a real HAProxy."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from support.edges import until

from cluster import keys


async def status(call):
    async with call as answer:
        return answer.status


async def told(call):
    async with call as answer:
        return answer.status, await answer.json()


CHAT = "/v1/chat/completions"


async def test_health_answers_without_a_key(world):
    assert await status(world.get("/health")) == 200


async def test_a_platform_key_calls_its_namespace_by_path_and_by_model(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    assert (await told(world.post(f"/endpoints/acme/chat-one{CHAT}", key)))[1]["engine"] == "one"
    for model in ("chat-one", "acme/chat-one"):
        code, answer = await told(world.post(CHAT, key, {"model": model}))
        assert (code, answer["engine"], answer["model"], answer["path"]) == (200, "one", model, CHAT)


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "key", "Authorization"])
async def test_each_credential_header_works_and_none_reaches_the_engine(world, engines, endpoint, header):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    value = f"bearer {key}" if header == "Authorization" else key
    assert await status(world.post(f"/endpoints/acme/chat-one{CHAT}", headers={header: value})) == 200
    assert key not in str(engine.seen[-1].headers)


async def test_without_a_valid_key_everything_is_401_in_the_right_shape(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    for key in (None, "nonsense", keys.mint("p").key):
        code, answer = await told(world.post(f"/endpoints/acme/chat-one{CHAT}", key))
        assert (code, answer["error"]["code"]) == (401, "invalid_api_key")
        code, answer = await told(world.post("/endpoints/acme/chat-one/generate", key))
        assert (code, answer["error_type"]) == (401, "invalid_api_key")
        assert await status(world.post(CHAT, key, {"model": "chat-one"})) == 401
        assert await status(world.post(f"/endpoints/acme/none{CHAT}", key)) == 401
        assert await status(world.get("/v1/models", key)) == 401


async def test_access_matrix(world, engines, endpoint):
    await world.publish(
        endpoint("chat-one", await engines("one")),
        endpoint("chat-two", await engines("two")),
        endpoint("open-one", await engines("open"), type="public"),
    )
    platform, other = await world.key(), await world.key(namespace="globex")
    own = await world.key(keys.ENDPOINT, endpoint="acme/chat-one")
    expected = {
        ("chat-one", platform): 200,
        ("chat-two", platform): 200,
        ("open-one", platform): 200,
        ("chat-one", other): 404,
        ("open-one", other): 200,
        ("open-one", None): 200,
        ("open-one", "unused"): 200,
        ("chat-one", own): 200,
        ("chat-two", own): 404,
        ("open-one", own): 200,
        ("absent", platform): 404,
    }
    for (name, key), code in expected.items():
        assert await status(world.post(f"/endpoints/acme/{name}{CHAT}", key)) == code, (name, code)
        assert await status(world.post(CHAT, key, {"model": f"acme/{name}"})) == code, (name, code)
    code, answer = await told(world.post(f"/endpoints/acme/chat-two{CHAT}", own))
    assert answer["error"]["code"] == "model_not_found"


async def test_a_private_endpoint_is_bound_to_its_networks(world, engines, endpoint):
    engine = await engines()
    await world.publish(
        endpoint("from-here", engine, type="private", networks=("127.0.0.0/8", "10.0.0.0/8")),
        endpoint("not-here", engine, type="private", networks=("10.0.0.0/8",)),
        endpoint("nested-net", engine, type="private", networks=("127.0.0.0/16",)),
        endpoint("any-net", engine, type="private"),
    )
    key, other = await world.key(), await world.key(namespace="globex")
    found = {
        name: await status(world.post(f"/endpoints/acme/{name}{CHAT}", key)) for name in ("from-here", "not-here", "nested-net", "any-net")
    }
    assert found == {"from-here": 200, "not-here": 403, "nested-net": 200, "any-net": 200}
    assert await status(world.post(f"/endpoints/acme/from-here{CHAT}", other)) == 404


@pytest.mark.parametrize(
    ("method", "path", "reached"),
    [
        ("POST", "/v1/completions", "/v1/completions"),
        ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("POST", "/v1/tokenize", "/tokenize"),
        ("GET", "/v1/models", "/v1/models"),
        ("GET", "/v1/responses/resp_1", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("POST", "", "/"),
        ("POST", "/", "/"),
        ("POST", "/generate_stream", "/generate_stream"),
        ("GET", "/info", "/info"),
        ("GET", "/health", "/health"),
        ("POST", "/predict", "/v1/chat/completions"),
        ("POST", "/predictWithResponseStream", "/v1/chat/completions"),
    ],
)
async def test_allowed_routes_reach_the_engine(world, engines, endpoint, method, path, reached):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    async with world.client.request(
        method,
        f"{world.url}/endpoints/acme/chat-one{path}?a=b%20c",
        headers={"Authorization": f"Bearer {key}"},
        data=b"{}" if method == "POST" else None,
    ) as answer:
        assert answer.status == 200
        assert await answer.json() | {"path": reached, "method": method} == await answer.json()
        assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("POST", "/invocations"),
        ("POST", "/pause"),
        ("GET", "/load"),
        ("GET", "/docs"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/tokenize"),
        ("DELETE", "/v1/chat/completions"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/V1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/predict"),
        ("GET", "/openapi.json"),
        ("POST", "/_moorage/drain"),
    ],
)
async def test_every_other_route_is_404(world, engines, endpoint, method, path):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    headers = {"Authorization": f"Bearer {await world.key()}"}
    for prefix in ("/endpoints/acme/chat-one", ""):
        async with world.client.request(method, f"{world.url}{prefix}{path}", headers=headers) as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "not_found"
    assert engine.seen == []


async def test_the_route_header_names_an_allowed_route_or_is_refused(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine, default_route="/v1/embeddings"))
    key = await world.key()
    url = "/endpoints/acme/chat-one/predict"
    assert (await told(world.post(url, key)))[1]["path"] == "/v1/embeddings"
    assert (await told(world.post(url, key, headers={"route": "/v1/completions"})))[1]["path"] == "/v1/completions"
    for wrong in ("/metrics", "/v1/../metrics", "v1/completions", "/v1/completions?x=1"):
        assert await status(world.post(url, key, headers={"route": wrong})) == 400


async def raw(world, text: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
    writer.write(text)
    await writer.drain()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head


@pytest.mark.parametrize(
    "path",
    [
        "/endpoints/acme/chat-one/../chat-one/v1/chat/completions",
        "/endpoints/acme/chat-one/%2e%2e/metrics",
        "/endpoints/acme/chat-one//v1/chat/completions",
        "//endpoints/acme/chat-one/v1/chat/completions",
        "/endpoints/acme/chat-one/./v1/chat/completions",
        "/endpoints/acme/chat-one/v1/chat/completions/..",
        "/endpoints/acme%2fchat-one/v1/chat/completions",
        "/endpoints/acme/chat-one/v1/chat/completions;x=1",
        "/endpoints/acme/chat-one/v1\\chat\\completions",
        "/manage/../endpoints/acme/chat-one/v1/chat/completions",
    ],
)
async def test_path_tricks_are_400(world, engines, endpoint, path):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    assert (await raw(world, request.encode()))[0] == 400
    assert engine.seen == []


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n", 400),
        ("x-api-key: {key}\r\nx-api-key: {key}\r\n", 400),
        ("Authorization: Bearer {key}\r\nX-Long: " + "a" * 17000 + "\r\n", 431),
    ],
)
async def test_odd_headers_are_refused(world, engines, endpoint, head, code):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    request = f"POST /endpoints/acme/chat-one/v1/completions HTTP/1.1\r\nHost: x\r\n{head.format(key=key)}Content-Length: 2\r\n\r\n{{}}"
    found, answer = await raw(world, request.encode())
    assert found == code
    assert b"x-request-id" in answer.lower()


async def test_headers_that_only_the_platform_sets_do_not_pass(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    spoofed = {
        "X-Engine-Secret": "mine",
        "X-Edge-Key": "a|p|globex||0|0",
        "X-Edge-Endpoint": "globex/x",
        "X-Edge-Secret": "x",
        "X-Moorage-Control": "x",
        "X-Moorage-Key-Id": "someone",
        "X-Request-Timeout-Seconds": "0.1",
        "X-Serve-Thing": "1",
        "X-Forwarded-For": "1.2.3.4",
        "X-Request-Id": "mine-1",
    }
    engine.extra_headers = {"X-Edge-Endpoint": "globex/x", "X-Request-Id": "engine", "Server": "engine"}
    async with world.post(f"/endpoints/acme/chat-one{CHAT}", key, headers=spoofed) as answer:
        assert answer.status == 200
        own_id = answer.headers["X-Request-Id"]
        assert own_id not in ("mine-1", "engine")
        assert not [name for name in answer.headers if name.lower().startswith("x-edge") or name == "Server"]
    got = engine.seen[-1].headers
    assert got.getall("X-Engine-Secret") == [engine.secret]
    assert got.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert got.getall("X-Request-Id") == [own_id]
    assert got["X-Client-Request-Id"] == "mine-1"
    assert got["X-Moorage-Endpoint"] == "acme/chat-one"
    assert got["X-Moorage-Key-Id"] == keys.key_id(key)
    assert {"X-Edge-Key", "X-Edge-Secret", "X-Moorage-Control", "X-Request-Timeout-Seconds", "X-Serve-Thing"}.isdisjoint(got)


async def test_the_inner_door_is_closed_without_the_secret(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    connector = aiohttp.UnixConnector(str(world.settings.files.inner))
    async with aiohttp.ClientSession(connector=connector) as inside:
        digest = next(iter(world.manager.now.keys), keys.digest(await world.key()))
        async with inside.post(f"http://x/endpoints/acme/chat-one{CHAT}", json={}, headers={"x-edge-digest": digest}) as answer:
            assert answer.status == 403


async def test_manage_goes_to_the_manager_and_is_503_while_it_is_away(worlds, engines):
    manager = await engines("manager", secret="")
    manager.secret = None
    world = await worlds(serve_port=manager.port)

    async def handle(request):
        manager.seen.append(request)
        return web.json_response({"path": request.path})

    manager._handle = handle
    manager._runner.server.request_handler = handle
    headers = {
        "Authorization": "Bearer hf",
        "X-Request-Timeout-Seconds": "0",
        "serve_multiplexed_model_id": "x",
        "X-Forwarded-For": "9.9.9.9",
    }
    async with world.get("/manage/v2/endpoint/acme", headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, {"path": "/manage/v2/endpoint/acme"})
    got = manager.seen[-1].headers
    assert got["Authorization"] == "Bearer hf"
    assert got["X-Forwarded-For"] == "127.0.0.1"
    assert {"X-Request-Timeout-Seconds", "serve_multiplexed_model_id"}.isdisjoint(got)
    await manager.kill()
    code, answer = await told(world.get("/manage/v2/endpoint/acme"))
    assert (code, answer["error_type"]) == (503, "unavailable")


async def test_models_lists_what_the_key_may_call_endpoints_at_zero_too(world, engines, endpoint):
    await world.publish(
        endpoint("chat-one", await engines()),
        endpoint("at-zero"),
        endpoint("open-one", namespace="globex", type="public"),
        endpoint("hidden", namespace="globex"),
    )
    key, own = await world.key(), await world.key(keys.ENDPOINT, endpoint="acme/at-zero")
    code, answer = await told(world.get("/v1/models", key))
    assert code == 200
    assert [(row["id"], row["owned_by"], row["state"]) for row in answer["data"]] == [
        ("at-zero", "acme", "scaledToZero"), ("chat-one", "acme", "running"), ("globex/open-one", "globex", "scaledToZero"),
    ]  # fmt: skip
    assert [row["id"] for row in (await told(world.get("/v1/models", own)))[1]["data"]] == ["at-zero", "globex/open-one"]
    assert (await told(world.get("/v1/models/acme/at-zero", key)))[1]["id"] == "acme/at-zero"
    assert await status(world.get("/v1/models/globex/hidden", key)) == 404
    assert world.manager.wakes == []


def log_lines(world):
    file = world.settings.files.access_log
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_the_access_log_has_the_request_and_no_secret(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    async with world.post(f"/endpoints/acme/chat-one{CHAT}?token=hunter2", key) as answer:
        request_id = answer.headers["X-Request-Id"]
    found = await until(lambda: [line for line in log_lines(world) if line["id"] == request_id])
    assert len(found) == 1
    line = found[0]
    assert (line["method"], line["path"], line["endpoint"], line["status"], line["server"]) == (
        "POST", f"/endpoints/acme/chat-one{CHAT}", "acme/chat-one", 200, "one-1",
    )  # fmt: skip
    assert line["key"] == keys.key_id(key)
    assert line["bytes_out"] > 0
    text = world.settings.files.access_log.read_text()
    assert key not in text
    assert "hunter2" not in text


OWN = [
    ("GET", "/metrics", "/metrics"),
    ("POST", "/deeply/nested/route", "/deeply/nested/route"),
    ("DELETE", "/v1/chat/completions", "/v1/chat/completions"),
    ("PUT", "/", "/"),
    ("GET", "/predict", "/predict"),
    ("POST", "/predict", "/predict"),
    ("POST", "/v1/chat/completions", "/v1/chat/completions"),
]


async def test_a_server_of_the_users_own_gets_every_path_below_its_url_from_those_who_may_call_it(world, engines, endpoint):
    engine = await engines()
    named = endpoint("named-one", engine, own_routes=True, default_route="/run")
    await world.publish(endpoint("own-one", engine, own_routes=True, default_route=""), named, endpoint("chat-one", engine))
    key, other = await world.key(), await world.key(namespace="globex")
    for method, path, reached in OWN:
        for given, expected in ((key, 200), (other, 404), (None, 401)):
            headers = {"Authorization": f"Bearer {given}"} if given else {}
            async with world.client.request(method, f"{world.url}/endpoints/acme/own-one{path}?a=1", headers=headers) as answer:
                assert answer.status == expected, (method, path, given)
                assert expected != 200 or await answer.json() | {"path": reached, "method": method} == await answer.json()
    headers = {"Authorization": f"Bearer {key}"}
    async with world.client.post(f"{world.url}/endpoints/acme/named-one/predict", headers=headers) as answer:
        assert (await answer.json())["path"] == "/run"
    for path in ("chat-one/metrics", "own-one/%2e%2e/x", "own-one/a//b"):  # elsewhere nothing has changed, and paths stay plain
        async with world.client.get(f"{world.url}/endpoints/acme/{path}", headers=headers) as answer:
            assert answer.status in (400, 404), path


async def test_without_a_key_nothing_tells_which_endpoints_have_routes_of_their_own(world, engines, endpoint):
    await world.publish(endpoint("own-one", await engines(), own_routes=True, default_route=""), endpoint("chat-one", await engines()))
    for name in ("own-one", "chat-one", "absent"):
        async with world.client.get(f"{world.url}/endpoints/acme/{name}/metrics") as answer:
            assert answer.status == 401
