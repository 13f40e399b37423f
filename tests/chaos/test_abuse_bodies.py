"""Bodies without end, bombs, and JSON that breaks parsers: refused in time, without memory, in words."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import socket
import time

import pytest
from support.edges import until
from support.haproxy_process import resident_bytes

from benchmarks import ratios

CHAT = "/v1/chat/completions"
BY_PATH = f"/endpoints/acme/chat-one{CHAT}"
PIECE = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
MIB = 2**20


@pytest.fixture
async def site(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    return world, engine, await world.key()


def own_bytes() -> int:
    """Memory of this process, in which the slow path runs."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def send_without_end(world, path: str, key: str, total: int = 10 * 2**30) -> tuple[int, int]:
    """Sends chunks until the server has had enough; (bytes taken from us, status or 0 when a reset overtook it).

    A bare socket, since an asyncio stream forgets what it has received as soon as a write of its fails.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", world.settings.port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        sent, answer = 0, asyncio.create_task(loop.sock_recv(client, 65_536))
        with contextlib.suppress(ConnectionError):
            while sent < total and not answer.done():
                await loop.sock_sendall(client, PIECE)
                await asyncio.sleep(0)
                sent += 65_536
        try:
            received = await asyncio.wait_for(answer, 10)
        except ConnectionError:
            return sent, 0
        return sent, int(received.split(maxsplit=2)[1])


@pytest.mark.full
@pytest.mark.parametrize("path", [CHAT, BY_PATH])
async def test_a_body_of_ten_gigabytes_is_refused_at_the_limit(site, record, path):
    """H2, chunked, so that nobody knows its length before."""
    world, engine, key = site
    limit, before = world.settings.body_limit, resident_bytes(world)
    sent, status = await send_without_end(world, path, key)
    assert status == 413
    record(f"H2 bytes taken of 10 GB at {path.rpartition('/')[0]}", sent / limit, 1.1, unit="limits", note=f"{sent / MIB:.0f} MiB")
    record("H2 HAProxy's memory for 10 GB", (resident_bytes(world) - before) / MIB, 20, unit="MiB")
    assert engine.bodies == []


@pytest.mark.full
async def test_many_endless_bodies_at_once_stay_within_the_slow_paths_budget(worlds, engines, endpoint, record):
    """H2: sixteen senders; what the budget does not cover is refused with 503, and all of it is given back."""
    world = await worlds(held_bytes=64 * MIB, body_limit=16 * MIB)
    await world.publish(endpoint("chat-one", await engines()))
    key, before, peak, edge_before = await world.key(), own_bytes(), 0, resident_bytes(world)

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, own_bytes())
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(send_without_end(world, CHAT, key, 2**30) for _ in range(16)))
    watching.cancel()
    assert {status for _, status in answers} <= {413, 503}
    record("H2 gateway's memory over its budget", (peak - before) / MIB - 64, 20, unit="MiB", note=f"{answers}")
    record("H2 HAProxy's memory for 16 endless bodies", (resident_bytes(world) - edge_before) / MIB, 20, unit="MiB")
    large = io.BytesIO(b'{"model": "chat-one", "x": "' + b"y" * 10 * MIB + b'"}')
    async with world.client.post(world.url + CHAT, data=large, headers={"Authorization": f"Bearer {key}"}) as answer:
        assert answer.status == 200


async def test_five_megabytes_without_a_key_are_refused_unread(site, record):
    """H2: neither the slow path nor an engine hears of them."""
    world, engine, _ = site
    taken = 0
    for path in (CHAT, BY_PATH):
        sent, status = await send_without_end(world, path, "nonsense", 5_000_000)
        assert status == 401
        taken = max(taken, sent)
    record("H2 bytes taken of 5 MB without a key", taken / MIB, 4, unit="MiB", note="what sockets and buffers hold")
    assert engine.bodies == []


async def test_a_gzip_bomb_stays_folded(site, record):
    """H2: nobody at the edge unfolds a body, so 256 MiB in 256 KB are 256 KB."""
    world, _, key = site
    bomb = gzip.compress(b'{"model": "chat-one"}' + b" " * (256 * MIB), 9)
    before, began = own_bytes(), time.monotonic()
    headers = {"Authorization": f"Bearer {key}", "Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with world.client.post(world.url + CHAT, data=bomb, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_request")
    record("H2 memory for a gzip bomb", (own_bytes() - before) / MIB, 20, unit="MiB", note=f"{time.monotonic() - began:.2f} s")


MODEL = b'"model": "chat-one"'
ODD = {
    "a hundred thousand deep": b'{"a": ' * 100_000,
    "deep and closed": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    "a million names": b"{" + b",".join(b'"k%d":1' % number for number in range(1_000_000)) + b"}",
    "a long number": b"{" + b'"max_tokens": ' + b"9" * 5000 + b"}",
    "constants": b'{"temperature": NaN, "top_p": Infinity, "n": 1e999}',
    "a lone surrogate as the model": b'{"model": "\\ud800"}',
    "bad UTF-8 as the model": b'{"model": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a name twice": b'{"model": "none", "model": "nobody"}',
    "nothing": b"",
    "blanks": b" " * 50_000,
    "a list": b"[]",
    "a text": b'"chat-one"',
    "a model that is an object": b'{"model": {"name": "chat-one"}}',
    "a model of a megabyte": b'{"model": "' + b"m" * MIB + b'"}',
    "UTF-16": '{"model": "nobody"}'.encode("utf-16"),
    "two documents": b'{"model": "nobody"}{"model": "chat-one"}',
}


async def test_json_that_breaks_parsers_is_answered_in_openais_shape(site, record):
    """H3, by the model in the body, where the edge itself reads it. Nothing takes long, and no engine hears of it."""
    world, engine, key = site
    wrong, slowest = [], 0.0
    for name, body in ODD.items():
        for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data", ""):
            headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
            began = time.monotonic()
            async with world.client.post(world.url + CHAT, data=io.BytesIO(body), headers=headers) as answer:
                text = await answer.text()
                slowest = max(slowest, time.monotonic() - began)
                if answer.status not in (400, 404, 413, 415) or not json.loads(text)["error"]["message"]:
                    wrong.append((name, kind, answer.status))
    record("H3 odd bodies answered otherwise than with a 4xx in OpenAI's shape", len(wrong), 0, unit="bodies", note=str(wrong))
    record("H3 slowest answer to an odd body", slowest, 5, unit="s")
    assert engine.seen == []


async def test_a_body_that_is_slow_to_read_holds_nobody_up(site, record):
    """H3: while bodies of many megabytes are looked into for their model, other requests are answered."""
    world, _, key = site
    heavy = b'{"a": [' + b"[" * 400 + b"]" * 400 + b"," + b",".join([b'{"k": "v"}'] * 700_000) + b"]}"
    headers = {"Authorization": f"Bearer {key}"}

    async def asked() -> int:
        async with world.client.post(world.url + CHAT, data=io.BytesIO(heavy), headers=headers) as answer:
            return answer.status

    found = []
    running = [asyncio.create_task(asked()) for _ in range(3)]
    while not all(task.done() for task in running):
        began = time.perf_counter()
        async with world.post(BY_PATH, key) as answer:
            assert answer.status == 200
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    assert [task.result() for task in running] == [400, 400, 400]
    record("H3 p90 beside three heavy bodies", 1e3 * ratios.percentile(found, 0.9), 250, unit="ms", note=f"{len(found)} requests")
    await until(lambda: world.edge._holding.held() == {}, 5)
