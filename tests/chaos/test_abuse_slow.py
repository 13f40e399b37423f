"""Clients that dawdle, send junk or never leave: others do not notice, and the edge lets go of them within its bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support import slow_clients
from support.edges import SECRET, until
from support.haproxy_process import open_files, resident_bytes
from support.ports import free_port

from benchmarks import ratios
from cluster import snapshot

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"
CROWDED = "/endpoints/acme/chat-two/v1/chat/completions"
MANY = 1000
ROUNDS, ROUND_S, RATE = 5, 4.0, 60


def head(key: str, length: int, path: str = CHAT) -> bytes:
    """A request whose body is still to come."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def crowd(world, tmp_path: Path, beginning: bytes, *, count=MANY, reopen=True, drip=True) -> AsyncIterator[dict]:
    """`count` dawdling connections while it lasts; the dict holds what became of them, a second old at most."""
    file = tmp_path / "beginning"
    file.write_bytes(beginning)
    words = (str(world.settings.port), str(count), str(file), "reopen" if reopen else "once", "drip" if drip else "still")
    process = await asyncio.create_subprocess_exec(sys.executable, slow_clients.__file__, *words, stdout=asyncio.subprocess.PIPE)
    told: dict = {}

    async def follow() -> None:
        async for line in process.stdout:
            told.update(json.loads(line))

    assert (await asyncio.wait_for(process.stdout.readline(), 60)) == b"ready\n"
    following = asyncio.create_task(follow())
    try:
        yield told
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await following


async def p99(world, key: str, seconds: float = ROUND_S) -> float:
    """Of an open load of short chat requests, RATE a second; each must be answered."""
    found: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        async with world.post(CHAT, key) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        found.append(time.perf_counter() - began)

    start, tasks = time.perf_counter(), []
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return ratios.percentile(found, 0.99)


async def connections(world) -> int:
    """How many HAProxy has at its public door."""
    return int((await world.edge._haproxy.runtime.info())["CurrConns"])


async def endless(engines):
    """An engine whose streams say something every five seconds and never end."""
    engine = await engines("endless")
    engine.ticks, engine.pause = 1_000_000, 5.0
    return engine


@pytest.fixture
async def site(worlds, engines, endpoint):
    """An edge as shipped (its own times and limits) with two endpoints; (world, the first one's engine, key)."""
    world, engine = await worlds(), await engines()
    await world.publish(endpoint("chat-one", engine), endpoint("chat-two", await endless(engines)))
    return world, engine, await world.key()


@pytest.fixture
async def guarded(worlds, endpoint):
    """An edge with the echo engine's own server behind it; (world, key, what tells how many requests are in that server)."""
    port, control = free_port(), "control-token"
    words = ("-m", "deployments.echo_server", "--host", "127.0.0.1", "--port", str(port))
    environment = {**os.environ, "MOORAGE_ENGINE_SECRET": SECRET, "MOORAGE_CONTROL_TOKEN": control}
    server = await asyncio.create_subprocess_exec(sys.executable, *words, env=environment, stderr=asyncio.subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/_moorage/stats"

    def load() -> int:
        return httpx.get(address, headers={"x-moorage-control": control}).json()["inflight"]

    def up() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return load() == 0
        return False

    await until(up, 30)
    world = await worlds()
    replica = snapshot.Replica("echo-1", 1, "127.0.0.1", port, 64)
    await world.publish(endpoint("chat-one", state="running", replicas=(replica,)))
    yield world, await world.key(), load
    server.kill()
    await server.wait()


@pytest.mark.full
@pytest.mark.parametrize("kind", ["headers", "bodies", "readers"])
async def test_a_thousand_dawdling_clients_do_not_slow_the_others(site, tmp_path, record, kind):
    """H1. Calm and crowded rounds alternate; the streams that nobody reads fill another endpoint and its queue."""
    world, _, key = site
    stream = json.dumps({"stream": True}).encode()
    beginning = {
        "headers": b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "bodies": head(key, 20_000),
        "readers": head(key, len(stream), CROWDED) + stream,
    }[kind]
    await p99(world, key)
    calm, crowded, files = [], [], 0
    for _ in range(ROUNDS):
        calm.append(await p99(world, key))
        async with crowd(world, tmp_path, beginning, drip=kind != "readers"):
            files = max(files, open_files(world))
            crowded.append(await p99(world, key))
        await until(lambda: quiet(world), 30)
    found = ratios.ratio(f"H1 p99 beside 1,000 slow {kind}", crowded, calm, 1.2)
    record(found.figure, found.value, 1.2, unit="x", low=found.low, high=found.high, note=f"calm {1e3 * min(calm):.1f} ms")
    record(f"H1 files of HAProxy with 1,000 slow {kind}", files, 2 * MANY + 500, unit="files")


async def quiet(world) -> bool:
    return await connections(world) <= 10


@pytest.mark.full
async def test_half_sent_headers_are_closed_within_fifteen_seconds(site, tmp_path, record):
    """H1: a byte a second keeps nothing open."""
    world, _, _ = site
    async with crowd(world, tmp_path, b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ", reopen=False) as told:
        await until(lambda: told.get("open") == 0, 30)
    record("H1 longest life of half-sent headers", max(told["ages"]), 15, unit="s", note=f"{len(told['ages'])} connections")


@pytest.mark.full
@pytest.mark.parametrize("path", [CHAT, "/v1/chat/completions"])
@pytest.mark.parametrize("size", [20_000, 5_000_000])
async def test_a_body_that_trickles_is_given_up_within_a_minute(guarded, tmp_path, record, path, size):
    """H1: of a large body all that the edge waits for comes at once, the rest a byte a second. The engine is a real server."""
    world, key, told_load = guarded
    sent = b'{"model": "chat-one", "messages": "' + b"x" * 40_000 if size > 32_768 else b"{"
    async with crowd(world, tmp_path, head(key, size, path) + sent, count=50, reopen=False) as told:
        with contextlib.suppress(TimeoutError):
            await until(lambda: told.get("open") == 0, 75)
    longest = max(told["ages"], default=0) if not told["open"] else told["oldest"]
    record(f"H1 longest life of a trickling body of {size:,} bytes at {path}", longest, 60, unit="s", note=f"{told['open']} still open")
    assert told_load() == 0


@pytest.mark.full
async def test_a_client_that_stops_reading_is_left_and_its_engine_is_freed(site, tmp_path, record):
    """H1: the stream is far larger than all buffers on its way."""
    world, engine, key = site
    engine.ticks, engine.pause, engine.filler = 2000, 0.0, b"x" * 65_536
    stream = json.dumps({"stream": True}).encode()
    began = time.monotonic()
    async with crowd(world, tmp_path, head(key, len(stream)) + stream, count=20, reopen=False, drip=False):
        assert await until(lambda: engine.active == 20, 10)
        with contextlib.suppress(TimeoutError):
            await until(lambda: engine.active == 0, 90)
        record("H1 longest life of a stream that nobody reads", time.monotonic() - began, 75, unit="s", note=f"{engine.active} left")


JUNK = {
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
    "zeros": b"\x00" * 5000,
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lines": b"\r\n" * 5000,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
async def test_junk_after_a_request_is_its_senders_problem_alone(site, junk):
    """H12: the request before it is answered, the connection ends, and the engine sees one request."""
    world, engine, key = site
    reader, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
    writer.write(head(key, 2) + b"{}" + junk)
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.write_eof()
        rest = await asyncio.wait_for(reader.read(), 15)
        assert b" 200 " not in rest, rest
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert len(engine.seen) == 1
    async with world.post(CHAT, key) as answer:
        assert answer.status == 200


async def test_a_half_closed_client_gets_its_answer_or_frees_the_engine_at_once(site, record):
    """H12: whichever of the two, nothing is left behind."""
    world, engine, key = site
    engine.ticks, engine.pause = 1_000_000, 0.01
    stream = json.dumps({"stream": True}).encode()
    writers = []
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", world.settings.port)
        writer.write(head(key, len(stream)) + stream)
        writers.append(writer)
    await until(lambda: engine.active == 20, 10)
    began = time.monotonic()
    for writer in writers:
        writer.write_eof()
    await until(lambda: engine.active == 0, 15)
    record("H12 engine freed after clients half-closed", time.monotonic() - began, 2, unit="s")
    for writer in writers:
        writer.close()


@pytest.mark.full
async def test_eight_thousand_idle_connections_cost_little_and_leave_room(site, record):
    """H12: as many as one edge accepts; the next one is served as soon as one of them leaves."""
    world, _, key = site
    before = resident_bytes(world)
    idle = []
    try:
        for _ in range(world.settings.connections - 50):
            one = socket.create_connection(("127.0.0.1", world.settings.port), timeout=10)
            idle.append(one)
        await until(lambda: enough(world, len(idle)), 30)
        grown = resident_bytes(world) - before
        async with world.post(CHAT, key) as answer:
            assert answer.status == 200
        record("H12 HAProxy's memory per idle connection", grown / len(idle) / 1024, 40, unit="KiB", note=f"{len(idle)} connections")
        await until(lambda: quiet(world), 20)
    finally:
        for one in idle:
            one.close()
    record("H12 connections left after idle ones were closed", await connections(world), 10, unit="connections")


async def enough(world, count: int) -> bool:
    return await connections(world) >= count
