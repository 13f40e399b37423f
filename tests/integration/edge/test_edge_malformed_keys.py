"""Whatever stands where a key should stand: refused, and nothing else happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from cluster import keys

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"
SQL = ("' OR '1'='1", "x'; DROP TABLE keys;--", '" OR ""="', "1) UNION SELECT digest FROM keys--")
SCHEMES = ("Bearer ", "bearer ", "BEARER  ", "Basic ", "Digest ", "Token ", "", "Bearer", "Bearer\t")


def value(number: int, rng: random.Random, real: str) -> bytes:
    """One malformed credential."""
    wrong = (
        lambda: rng.choice(SQL).encode(),
        lambda: rng.randbytes(rng.randint(1, 60)).translate(None, b"\r\n"),
        lambda: b"moor_p_\x00" + rng.randbytes(4).hex().encode(),
        lambda: real.encode() + b"\x00",
        lambda: (real[:-1] + ("0" if real[-1] != "0" else "1")).encode(),
        lambda: real.swapcase().encode(),
        lambda: f"{real}, {real}".encode(),
        lambda: f"{real} {real}".encode(),
        lambda: "".join(chr(rng.randint(0x80, 0xFFFF)) for _ in range(9)).encode("utf-8", "ignore"),
        lambda: b"" if number % 2 else b" " * rng.randint(1, 9),
        lambda: b"|".join((b"abc", b"p", b"acme")) + b"||0|0",
        lambda: keys.mint("p").key.encode(),
        lambda: b"x" * (65536 if number % 40 == 12 else rng.randint(200, 4000)),
        lambda: real[: rng.randint(1, len(real) - 1)].encode(),
    )
    return rng.choice(SCHEMES).encode() + wrong[number % len(wrong)]()


def requests(count: int, real: str) -> Iterator[bytes]:
    """Whole requests, some with the header twice or in another credential header."""
    rng = random.Random(5)
    for number in range(count):
        given = value(number, rng, real)
        name = rng.choice([b"Authorization", b"authorization", b"x-api-key", b"api-key", b"key"])
        if name not in (b"Authorization", b"authorization"):
            given = given.split(b" ", 1)[-1].replace(real.encode(), real[::-1].encode())
        head = b"POST %b HTTP/1.1\r\nHost: x\r\n%b: %b\r\n" % (CHAT.encode(), name, given)
        if number % 5 == 0:
            head += b"%b: Bearer %b\r\n" % (name, real.encode())
        yield head + b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


async def answered(port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        status = await asyncio.wait_for(reader.readline(), 10)
        await reader.read()
    finally:
        writer.close()
    return int(status.split()[1])


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.full)])
async def test_malformed_credentials_are_refused_and_reach_nothing(world, engines, endpoint, count):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    rows = list(requests(count, key))
    found: dict[int, list[bytes]] = {}
    for start in range(0, count, 50):
        batch = rows[start : start + 50]
        for request, status in zip(batch, await asyncio.gather(*(answered(world.settings.port, one) for one in batch)), strict=True):
            found.setdefault(status, []).append(request)
    assert set(found) <= {400, 401, 431}, {status: sent[0][:300] for status, sent in found.items()}
    assert set(found) >= {400, 401}
    assert engine.seen == []
    assert world.manager.wakes == []
    async with world.post(CHAT, key) as answer:
        assert answer.status == 200
