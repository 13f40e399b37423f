"""Bodies that dawdle, on fake channels: ended with 408 by the engine's side, refused by the slow path and the management API."""

import asyncio
import json

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from cluster import errors, pace
from cluster.api import bodies as api_bodies
from deployments.slow_bodies import WHOLE, SlowBodies
from gateway import bodies

LARGE = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"%d" % (WHOLE + 1))]}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(pace, "GRACE_S", 0.05)


async def reading(scope, receive, send):
    """An application that echoes the length of its body."""
    body = await Request(scope, receive).body()
    await JSONResponse(len(body))(scope, receive, send)


def channel(*parts, end=True):
    """A receive channel that gives `parts`, and then the end or nothing for ever."""
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    waiting += [{"type": "http.request", "body": b"", "more_body": False}] if end else []

    async def receive():
        if not waiting:
            await asyncio.get_running_loop().create_future()
        return waiting.pop(0)

    return receive


async def asked(app, scope, receive):
    sent = []

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


async def test_a_large_body_that_comes_is_passed_on():
    assert (await asked(SlowBodies(reading), LARGE, channel(b"x" * 10, b"y")))[:2] == (200, 11)


@pytest.mark.parametrize("header", [(b"content-length", b"99999"), (b"transfer-encoding", b"chunked"), (b"content-length", b"many")])
async def test_a_large_body_that_does_not_come_is_408_and_ends_the_connection(header):
    status, body, headers = await asked(SlowBodies(reading), {**LARGE, "headers": [header]}, channel(b"x", end=False))
    assert (status, body["error"]["code"], headers[b"connection"]) == (408, "body_timeout", b"close")


async def test_an_answer_to_half_a_body_is_replaced():
    async def answers_anyway(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await JSONResponse({"error": "parsing"}, 400)(scope, receive, send)

    assert (await asked(SlowBodies(answers_anyway), LARGE, channel(b"x", end=False)))[0] == 408


async def test_bytes_that_come_fast_enough_buy_time(monkeypatch):
    monkeypatch.setattr(pace, "BYTES_PER_S", 10)
    receive = channel(b"x" * 10)

    async def late():
        message = await receive()
        if not message["more_body"]:
            await asyncio.sleep(0.2)
        return message

    assert (await asked(SlowBodies(reading), LARGE, late))[:2] == (200, 10)


async def test_the_slow_path_and_the_management_api_give_up_too(monkeypatch):
    with pytest.raises(errors.BodyTimeout):
        await bodies.Body(bodies.Budget(100), 100).read(channel(b"x", end=False))
    monkeypatch.setattr(api_bodies, "LIMIT", 1)
    with pytest.raises(errors.BodyTimeout):
        await api_bodies.raw(Request({"type": "http", "headers": []}, channel(b"x", end=False)))
