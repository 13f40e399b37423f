"""The model found in bodies of every size and shape, and the bounds on them."""

from __future__ import annotations

import asyncio
import io
import json

import aiohttp
import pytest
from support.edges import until

CHAT = "/v1/chat/completions"
EDGES = [100, 1024, 20_000, 32_700, 32_768, 32_769, 33_000, 65_000, 66_000, 300_000, 3_000_000]


def sized(size: int, model: str = "chat-one") -> bytes:
    """A JSON body of exactly `size` bytes with `model` at its end, where a reader of the beginning would miss it."""
    frame = json.dumps({"messages": "", "model": model})
    return frame.replace('""', '"' + "x" * (size - len(frame)) + '"', 1).encode()


async def sent(world, path, key, body, **headers):
    options = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    async with world.client.post(world.url + path, data=io.BytesIO(body) if isinstance(body, bytes) else body, headers=options) as answer:
        return answer.status, await answer.json()


async def first_line(world, request: bytes) -> bytes:
    """The answer's first line, given before the body was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
    writer.write(request)
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
    return line


async def pieces(body: bytes, size: int):
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0)


async def test_bodies_of_all_sizes_reach_the_endpoint_they_name(world, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    await world.publish(endpoint("chat-one", one), endpoint("chat-two", two))
    key = await world.key()
    for size in EDGES:
        for engine, model in ((one, "chat-one"), (two, "acme/chat-two")):
            body = sized(size, model)
            code, answer = await sent(world, CHAT, key, body)
            assert (code, answer["engine"], answer["model"]) == (200, engine.name, model), size
            assert engine.bodies[-1] == body


@pytest.mark.parametrize("piece", [7, 1000, 40_000])
async def test_chunked_bodies_reach_the_endpoint_they_name(world, engines, endpoint, piece):
    one = await engines("one")
    await world.publish(endpoint("chat-one", one))
    key = await world.key()
    for size in (100, 32_768, 40_000, 200_000):
        body = sized(size)
        for path in (CHAT, f"/endpoints/acme/chat-one{CHAT}"):
            code, answer = await sent(world, path, key, pieces(body, max(piece, size // 2000)))
            assert (code, answer.get("engine")) == (200, "one"), (size, path)
            assert one.bodies[-1] == body


async def test_a_model_that_haproxy_cannot_read_is_found_by_the_slow_path(world, engines, endpoint):
    one = await engines("one")
    await world.publish(endpoint("chat-one", one))
    key = await world.key()
    for body in (b'{"mod\\u0065l": "chat-one"}', b'{"model": "acme\\/chat-one"}', b'{"a": {"model": "other"}, "model": "chat-one"}'):
        assert (await sent(world, CHAT, key, body))[0] == 200, body


async def test_a_multipart_form_names_its_model(world, engines, endpoint):
    one = await engines("one")
    await world.publish(endpoint("chat-one", one))
    key = await world.key()
    for size in (100, 200_000):
        form = aiohttp.FormData()
        form.add_field("file", b"\x00\xff\r\n" * (size // 4), filename="speech.wav", content_type="audio/wav")
        form.add_field("model", "chat-one")
        async with world.client.post(
            world.url + "/v1/audio/transcriptions", data=form, headers={"Authorization": f"Bearer {key}"}
        ) as answer:
            assert (answer.status, (await answer.json())["path"]) == (200, "/v1/audio/transcriptions")


@pytest.mark.parametrize(
    ("body", "code", "slug"),
    [
        (b"", 400, "invalid_request"),
        (b"not json", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"model": 5}', 400, "invalid_request"),
        (b'{"messages": []}', 400, "invalid_request"),
        (b'{"model": ""}', 400, "invalid_request"),
        (b'{"model": "absent"}', 404, "model_not_found"),
        (b'{"model": "chat-one\\u0000x"}', 404, "model_not_found"),
        (b'{"model": "chat-one\\n"}', 404, "model_not_found"),
        (b"[" * 30_000, 400, "invalid_request"),
        (b"[" * 200_000, 400, "invalid_request"),
        (b'{"model": "\xff\xfe"}', 400, "invalid_request"),
        (b'{"model": ' + b"9" * 5000 + b"}", 400, "invalid_request"),
    ],
)
async def test_bad_bodies_are_told_apart_in_words(world, engines, endpoint, body, code, slug):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    found, answer = await sent(world, CHAT, await world.key(), body)
    # A number's text is a possible name, and no endpoint has it.
    expected = {(code, slug), (404, "model_not_found")} if b": 5" in body or b"999" in body else {(code, slug)}
    assert (found, answer["error"]["code"]) in expected
    assert engine.seen == []


async def test_bodies_over_the_limit_are_413_declared_or_not(worlds, engines, endpoint):
    world = await worlds(body_limit=2**20)
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    for path in (CHAT, f"/endpoints/acme/chat-one{CHAT}"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {2**20 + 1}\r\n\r\n{{"
        assert (await first_line(world, head.encode())).split()[1] == b"413"
        code, answer = await sent(world, path, key, pieces(sized(2**20 + 1), 50_000))
        assert (code, answer["error"]["code"]) == (413, "too_large")
        assert (await sent(world, path, key, sized(2**20)))[0] == 200
    assert len(engine.seen) == 2


async def test_large_bodies_without_a_key_are_refused_unread(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    line = await first_line(world, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n{")
    assert line.split()[1] == b"401"


async def test_a_body_that_stalls_is_408(worlds, engines, endpoint):
    world = await worlds(body_timeout=1)
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    for path in (CHAT, f"/endpoints/acme/chat-one{CHAT}"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 50\r\n\r\n{{"
        assert (await first_line(world, head.encode())).split()[1] == b"408"
    assert engine.seen == []


async def test_large_bodies_count_once_against_the_keys_limits(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key(requests_per_minute=4, concurrency=1)
    found = [(await sent(world, CHAT, key, sized(100_000)))[0] for _ in range(5)]
    assert found == [200, 200, 200, 200, 429]


async def test_a_large_body_is_one_line_of_the_access_log_and_one_request_of_the_endpoint(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    await sent(world, CHAT, await world.key(), sized(100_000))
    file = world.settings.files.access_log
    await until(lambda: file.exists() and "completions" in file.read_text(), 10)
    counted = await until(lambda: [report.requests for report in world.manager.reports if report.requests], 10)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["endpoint"], line["server"], line["slow"], line["path"]) for line in lines] == [("acme/chat-one", "one-1", "body", CHAT)]
    assert [dict(rows)["acme/chat-one"][0] for rows in counted] == [1]
