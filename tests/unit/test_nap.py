"""An engine sleeps between requests, and whoever asks it something waits until it is awake."""

import asyncio
import json

import pytest

from deployments import guard
from deployments.engine_stats import EngineStats
from deployments.nap import Busy, Nap


class Engine:
    """Its steps take as long as the test says."""

    def __init__(self):
        self.steps = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failing = set()
        self.given_up = False

    async def step(self, name):
        await self.go_on.wait()
        if name in self.failing:
            raise RuntimeError(name)
        self.steps.append(name)

    def nap(self):
        return Nap(lambda: self.step("sleep"), lambda: self.step("wake"), give_up=lambda: setattr(self, "given_up", True))


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def nap(engine):
    return engine.nap()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_who_find_it_asleep_wake_it_once(engine, nap):
    await nap.begin(lambda: False)
    assert nap.asleep
    await asyncio.gather(*(nap.end() for _ in range(20)))
    assert engine.steps == ["sleep", "wake"]
    assert not nap.asleep


async def test_a_busy_engine_does_not_sleep(engine, nap):
    with pytest.raises(Busy):
        await nap.begin(lambda: True)
    assert engine.steps == []
    assert not nap.asleep


async def test_a_sleeping_engine_is_not_put_to_sleep_again(engine, nap):
    await nap.begin(lambda: False)
    await nap.begin(lambda: False)
    assert engine.steps == ["sleep"]


async def test_a_request_that_arrives_while_it_falls_asleep_waits_and_wakes_it(engine, nap):
    engine.go_on.clear()
    falling = asyncio.create_task(nap.begin(lambda: False))
    await settle()
    waiting = asyncio.create_task(nap.end())
    await settle()
    assert not waiting.done()
    engine.go_on.set()
    await asyncio.gather(falling, waiting)
    assert engine.steps == ["sleep", "wake"]


async def test_a_client_that_leaves_does_not_stop_the_waking(engine, nap):
    await nap.begin(lambda: False)
    engine.go_on.clear()
    waiting = asyncio.create_task(nap.end())
    await settle()
    waiting.cancel()
    engine.go_on.set()
    await nap.end()
    assert engine.steps == ["sleep", "wake"]


async def test_an_engine_that_cannot_fall_asleep_is_woken_and_serves_on(engine, nap):
    engine.failing = {"sleep"}
    await nap.begin(lambda: False)
    assert engine.steps == ["wake"]
    assert not nap.asleep
    assert not engine.given_up


async def test_an_engine_that_does_not_wake_is_given_up(engine, nap):
    await nap.begin(lambda: False)
    engine.failing = {"wake"}
    with pytest.raises(RuntimeError, match="wake"):
        await nap.end()
    assert engine.given_up


EDGE, CONTROL = (b"x-engine-secret", b"edge"), (b"x-moorage-control", b"control")


@pytest.fixture
def guarded(nap):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"engine"})

    return guard.Guard(app, guard.Secrets(b"edge", b"control"), EngineStats(connected=True, nap=nap))


async def call(application, method, path, *headers):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    await application({"type": "http", "method": method, "path": path, "headers": list(headers)}, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def stats(application):
    return json.loads((await call(application, "GET", "/_moorage/stats", CONTROL))[1])


async def test_the_supervisor_puts_it_to_sleep_and_a_question_wakes_it(guarded, engine):
    status, body = await call(guarded, "POST", "/_moorage/sleep", CONTROL)
    assert (status, json.loads(body)["asleep"]) == (200, True)
    assert (await call(guarded, "POST", "/v1/completions", EDGE))[0] == 200
    assert engine.steps == ["sleep", "wake"]
    assert not (await stats(guarded))["asleep"]


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics"])
async def test_what_is_only_read_does_not_wake_it(guarded, engine, path):
    await call(guarded, "POST", "/_moorage/sleep", CONTROL)
    assert (await call(guarded, "GET", path, EDGE))[0] == 200
    assert engine.steps == ["sleep"]


async def test_nobody_but_the_supervisor_puts_it_to_sleep(guarded, engine):
    assert (await call(guarded, "POST", "/_moorage/sleep", EDGE))[0] == 403
    assert engine.steps == []


async def test_an_engine_without_a_sleep_mode_says_so():
    made = guard.Guard(lambda *_: None, guard.Secrets(b"edge", b"control"), EngineStats())
    assert (await call(made, "POST", "/_moorage/sleep", CONTROL))[0] == 404
    assert not (await stats(made))["asleep"]


async def test_idle_time_counts_from_the_end_of_the_last_request(guarded):
    before = (await stats(guarded))["idle_s"]
    await asyncio.sleep(0.02)
    grown = (await stats(guarded))["idle_s"]
    assert grown >= before + 0.02
    await call(guarded, "POST", "/v1/completions", EDGE)
    assert (await stats(guarded))["idle_s"] < grown
