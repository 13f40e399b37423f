"""Requests that two servers could read in two ways, routes nobody may reach, and every route without the right key."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from support.api import Api

from cluster import keys, routes

PATH = "/endpoints/acme/chat-one/v1/chat/completions"
GOOD = b"Host: x\r\nAuthorization: Bearer KEY\r\nContent-Type: application/json\r\n"
BODY = b"Content-Length: 2\r\n\r\n{}"
LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
SMUGGLED = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nX-Smuggled: 1\r\nAuthorization: Bearer KEY\r\nContent-Length: 2\r\n\r\n{}"


def hosted(host: bytes) -> bytes:
    return LINE + GOOD.replace(b"Host: x", b"Host: " + host) + BODY


REFUSED = {
    "a header of 200 KB": LINE + GOOD + b"X-Long: " + b"a" * 200_000 + b"\r\n" + BODY,
    "five hundred headers": LINE + GOOD + b"".join(b"X-H%d: 1\r\n" % number for number in range(500)) + BODY,
    "a header name with a space": LINE + GOOD + b"X Bad: 1\r\n" + BODY,
    "a space before the colon": LINE + GOOD + b"Content-Type : text/plain\r\n" + BODY,
    "a NUL in a value": LINE + GOOD + b"X-Nul: a\0b\r\n" + BODY,
    "a bare carriage return in a value": LINE + GOOD + b"X-Cr: a\rX-Engine-Secret: b\r\n" + BODY,
    "a header without a colon": LINE + GOOD + b"nothing\r\n" + BODY,
    "two lengths": LINE + GOOD + b"Content-Length: 3\r\n" + BODY,
    "a list of lengths": LINE + GOOD + b"Content-Length: 2, 3\r\n\r\n{}",
    "a negative length": LINE + GOOD + b"Content-Length: -2\r\n\r\n{}",
    "a length with a sign": LINE + GOOD + b"Content-Length: +2\r\n\r\n{}",
    "a length in hexadecimal": LINE + GOOD + b"Content-Length: 0x2\r\n\r\n{}",
    "a length over all bounds": LINE + GOOD + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "an unknown coding": LINE + GOOD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": LINE + GOOD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": LINE + GOOD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding after a tab": LINE + GOOD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": LINE.replace(b"1.1", b"1.0") + GOOD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": LINE + GOOD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk size over all bounds": LINE + GOOD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "no host": LINE + GOOD.replace(b"Host: x\r\n", b"") + BODY,
    "two hosts": LINE + b"Host: y\r\n" + GOOD + BODY,
    "a host with a path": hosted(b"localhost/?x=1"),
    "a host with a fragment": hosted(b"x/#"),
    "a broken address as host": hosted(b"[::1"),
    "another host in the URI": b"POST http://other" + PATH.encode() + b" HTTP/1.1\r\n" + GOOD + BODY,
    "the authority form": b"CONNECT x:80 HTTP/1.1\r\n" + GOOD + b"\r\n",
    "the asterisk form": b"OPTIONS * HTTP/1.1\r\n" + GOOD + b"\r\n",
    "a path that is none": b"POST chat HTTP/1.1\r\n" + GOOD + BODY,
    "a NUL in the path": b"POST " + PATH.encode() + b"%00 HTTP/1.1\r\n" + GOOD + BODY,
    "a line break in the path": b"POST " + PATH.encode() + b"%0d%0aX:1 HTTP/1.1\r\n" + GOOD + BODY,
    "an encoded slash": b"POST " + PATH.replace("acme/", "acme%2f").encode() + b" HTTP/1.1\r\n" + GOOD + BODY,
    "..%2f": b"POST /endpoints/acme/..%2facme/chat-one/v1/completions HTTP/1.1\r\n" + GOOD + BODY,
    "a path of 10 KB": b"POST /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + GOOD + BODY,
    "a method that is none": b"\x01\x02 / HTTP/1.1\r\n" + GOOD + BODY,
    "HTTP/0.9": b"GET " + PATH.encode() + b"\r\n",
    "HTTP/2 without asking": LINE.replace(b"1.1", b"2.0") + GOOD + BODY,
    "an endless version": LINE.replace(b"1.1", b"1.1111111111") + GOOD + BODY,
    "GET with a method override": LINE.replace(b"POST", b"GET") + GOOD + b"X-HTTP-Method-Override: POST\r\n\r\n",
}
LENGTH_AND_CHUNKS = LINE + GOOD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED


@pytest.fixture
async def site(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    return world, engine, await world.key()


async def statuses(world, request: bytes) -> list[int]:
    """Of all answers on one connection, until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
    found = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(0.7):
            while piece := await reader.read(65_536):
                found += piece
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", found)]


async def test_a_request_that_can_be_read_in_two_ways_is_refused_and_reaches_no_engine(site, record):
    """H4. Whoever sends it with a key gets a 4xx, and so does everybody else."""
    world, engine, key = site
    asked = [
        (name, given, request.replace(b"KEY", given.encode())) for name, request in REFUSED.items() for given in (key, "moor_p_nothing")
    ]
    answered = await asyncio.gather(*(statuses(world, request) for _, _, request in asked))
    wrong = []
    for (name, given, _), found in zip(asked, answered, strict=True):
        if len(found) > 1 or any(not 400 <= status < 500 for status in found) or (given == key and 401 in found):
            wrong.append((name, given == key, found))
    record("H4 odd requests that were not refused", len(wrong), 0, unit="requests", note=f"{wrong} of {2 * len(REFUSED)}")
    assert not wrong
    assert engine.seen == []
    async with world.post(PATH, key) as answer:
        assert answer.status == 200


async def test_a_request_behind_a_length_and_chunks_is_not_run(site, record):
    """H4: HAProxy has the chunks count and closes, or refuses; the request in the body is never the next one."""
    world, engine, key = site
    found = await statuses(world, LENGTH_AND_CHUNKS.replace(b"KEY", key.encode()))
    smuggled = sum("X-Smuggled" in request.headers for request in engine.seen)
    record("H4 smuggled requests", smuggled, 0, unit="requests", note=str(found))
    assert len(found) == 1


async def test_a_host_header_and_an_absolute_uri_change_no_decision(site):
    """H4: what is odd but legal is answered as its plain form is."""
    world, engine, key = site
    absolute = b"POST http://x" + PATH.encode() + b" HTTP/1.1\r\n" + GOOD + BODY
    for request in (absolute, hosted(b"localhost:4000"), hosted(b"a@b"), hosted(b"127.0.0.1:1"), hosted(b"manage")):
        with_key = await statuses(world, request.replace(b"KEY", key.encode()))
        without = await statuses(world, request.replace(b"KEY", b"nonsense"))
        assert with_key in ([200], [400]), (request[:80], with_key)
        assert without in ([401], [400]), (request[:80], without)
    assert {request.path for request in engine.seen} <= {"/v1/chat/completions"}


STRIPPED = """
    x-request-timeout-seconds x-request-disconnect-disabled serve_multiplexed_model_id serve-multiplexed-model-id
    x-session-id x-serve-router-hint x-forwarded-host x-forwarded-proto forwarded x-engine-secret x-edge-digest x-edge-key
    x-edge-source x-moorage-control x-moorage-key-id x-moorage-anything authorization x-api-key
""".split()  # noqa: SIM905 - a list of forty strings reads worse


async def test_no_header_that_is_the_platforms_or_rays_passes_on_any_way(site, record):
    """H4: by the endpoint's path and by the model, small and too large to be read at the edge, in lower and upper case."""
    world, engine, key = site
    leaked = set()
    for path in (PATH, "/v1/chat/completions"):
        for size in (10, 100_000):
            for case in (str.lower, str.upper):
                headers = {case(name): "spoofed" for name in STRIPPED if name != "authorization"} | {"X-Api-Key": key}
                del headers[case("x-api-key")]
                async with world.post(path, None, {"model": "chat-one", "x": "y" * size}, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                got = engine.seen[-1].headers
                leaked |= {name for name in got if "spoofed" in got.getall(name)} | {name for name in got if key in got[name]}
    record("H4 headers that reached an engine", len(leaked), 0, unit="headers", note=str(leaked))


INTERNAL = """
    /invocations /inference /pause /resume /is_paused /abort_requests /metrics /tokenize /detokenize /classify /pooling
    /score /rerank /collective_rpc /docs /redoc /openapi.json /-/routes /-/healthz /sleep /wake_up /is_sleeping
    /reset_prefix_cache /reset_mm_cache /start_profile /stop_profile /server_info /version /ping /load /v1/load_lora_adapter
    /v1/unload_lora_adapter /scale_elastic_ep /_moorage/stats /_moorage/drain /v2/embed /v1/responses /v1/internal
    /api/gcs_healthz /api/serve/applications/ /stats /haproxy
""".split()  # noqa: SIM905 - a list of forty strings reads worse


async def test_routes_that_are_the_engines_own_are_404_with_every_method(site, record):
    """H6: with a key that may call the endpoint."""
    world, engine, key = site
    passed = []
    for path in INTERNAL:
        for prefix in ("/endpoints/acme/chat-one", ""):
            for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"):
                if (method, path) == ("POST", "/v1/responses"):
                    continue
                headers = {"Authorization": f"Bearer {key}"}
                async with world.client.request(method, f"{world.url}{prefix}{path}", headers=headers) as answer:
                    if answer.status != 404:
                        passed.append((method, prefix + path, answer.status))
    record("H6 engine routes that are not 404", len(passed), 0, unit="routes", note=str(passed))
    assert engine.seen == []


def edge_routes():
    """(method, path) of every route of endpoints, by the endpoint's path and by the model."""
    listed = [tuple(route.split(":", 1)) for route in routes.ALLOWED]
    listed += [("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1"), ("POST", "/v1/responses/resp_1/cancel")]
    for method, path in [*listed, *(("POST", path) for path in routes.PREDICT)]:
        yield method, f"/endpoints/acme/chat-one{path}"
        if path.startswith("/v1/") and (method == "POST" or path == "/v1/models"):
            yield method, path


async def test_every_route_of_the_edge_asks_for_a_key_with_access(site, record):
    """H5: no key, nonsense, a well-formed key nobody minted, a revoked key, another tenant's, another endpoint's."""
    world, engine, _ = site
    revoked = await world.key()
    await world.revoke(revoked)
    none, absent = {401}, {401, 404}
    callers = [(None, none), ("nonsense", none), (keys.mint("p").key, none), (revoked, none)]
    callers += [(await world.key(namespace="globex"), absent), (await world.key(keys.ENDPOINT, endpoint="acme/other"), absent)]
    wrong, asked = [], 0
    for method, path in edge_routes():
        for given, right in callers:
            headers = {"Authorization": f"Bearer {given}"} if given else {}
            body = {"model": "acme/chat-one"} if method == "POST" else None
            async with world.client.request(method, world.url + path, headers=headers, json=body) as answer:
                asked += 1
                foreign_list = path == "/v1/models" and right is absent and answer.status == 200 and (await answer.json())["data"] == []
                if answer.status not in right and not foreign_list:
                    wrong.append((method, path, answer.status))
    record("H5 answers of the edge to callers without access", len(wrong), 0, unit="answers", note=f"{wrong} of {asked}")
    assert engine.seen == []


def test_every_route_of_the_management_api_asks_for_a_platform_key(tmp_path, record):
    """H5: what its own description lists, so that a new route is looked at too."""
    api = Api(tmp_path)
    own = api.create()["apiKey"]["key"]
    callers = [("", 401), ("nonsense", 401), (keys.mint("p").key, 401), (own, 403)]
    wrong, asked = [], 0
    for method, path, url in api.routes():
        for given, right in callers:
            answer = api.call(method, url, {} if method in ("POST", "PUT", "PATCH") else None, key=given)
            asked += 1
            if path != "/health" and answer.status_code != right:
                wrong.append((method, path, given[:8], answer.status_code))
    record("H5 answers of the management API to callers without access", len(wrong), 0, unit="answers", note=f"{wrong} of {asked}")
