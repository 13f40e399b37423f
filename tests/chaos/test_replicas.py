"""Replicas and their servers die, and clients leave, while requests flow."""

import asyncio
import time

import aiohttp
import pytest
from support.load import Load, bad, latency
from support.platforms import until

PAIR, SINGLE = "pair", "single"


@pytest.fixture(scope="module")
def served(platform):
    """Two replicas of one endpoint, one of another."""
    platform.create(PAIR, echo={"tokensPerSecond": 100}, scaling={"minReplica": 2, "maxReplica": 2})
    platform.create(SINGLE, echo={"tokensPerSecond": 100})
    until(lambda: whole(platform), what="two replicas")
    return platform


def load(platform, name=PAIR, rate=20, **fields):
    body = {"model": name, "messages": [{"role": "user", "content": "one two three four five"}], **fields}
    return Load(f"{platform.url}/endpoints/admin/{name}/v1/chat/completions", platform.token, rate=rate, body=body)


def whole(platform):
    status = platform.status(PAIR)
    return status["state"] == "running" and status["readyReplica"] == 2


def test_a_killed_replica_of_two_fails_no_request_and_is_replaced(served, record):
    """F1"""
    load_time = served.status(PAIR)["expectedSeconds"]
    with load(served, max_tokens=20) as requests:
        until(lambda: len(requests.answers) > 40, what="requests flow")
        served.kill(f"ServeReplica:admin--{PAIR}--r1", most=1)
        killed = time.monotonic()
        until(lambda: served.status(PAIR)["readyReplica"] < 2, 20, what="the loss is seen")
        until(lambda: whole(served), 60, what="the replica is replaced")
        replaced = time.monotonic() - killed
        until(lambda: len(requests.answers) >= 400, 30, what="400 answers")
    failed = bad(requests.answers)
    p99 = latency(requests.answers, 0.99)
    record(
        "F1 failed requests, one of two replicas killed", len(failed), 0, note=f"of {len(requests.answers)}, p99 {p99:.2f} s; {failed[:3]}"
    )
    record("F1 time until the replica is replaced", replaced, 10 + load_time, unit="s", note=f"bar: 10 s + load time of {load_time:g} s")


def test_streams_of_a_killed_replica_break_off_visibly_and_the_others_complete(served, record):
    """F2. HAProxy carries the bytes and cannot add an SSE event to a stream: the client sees the connection break, and no [DONE]."""
    with load(served, rate=4, stream=True, max_tokens=300) as streams:
        until(lambda: len(streams.answers) >= 1, what="streams run")
        served.kill(f"ServeReplica:admin--{PAIR}--r1", most=1)
        killed = time.monotonic()
        until(lambda: len(streams.since(killed + 1)) >= 4, 30, what="streams that began after the kill have ended")
    until(lambda: whole(served), 60, what="the replica is replaced")
    cut = [answer for answer in streams.answers if not answer.good]
    assert cut, "some streams ran on the killed replica"
    disguised = [answer for answer in cut if not answer.error or "[DONE]" in answer.text]
    record("F2 broken streams that end like whole ones", len(disguised), 0, note=f"of {len(cut)} broken")
    record("F2 longest time until a broken stream is seen", max(answer.ended for answer in cut) - killed, 1, unit="s")
    record("F2 streams broken that began after the kill", len(bad(streams.since(killed + 0.2))), 0)
    running = [answer for answer in streams.answers if answer.began < killed < answer.ended]
    record("F2 share of running streams that completed", sum(answer.good for answer in running) / len(running), 0.25, at_most=False)


def test_without_its_only_replica_an_endpoint_holds_requests_or_tells_when_to_come_back(served, record):
    """F3"""
    load_time = served.status(SINGLE)["expectedSeconds"]
    with load(served, SINGLE, rate=10, max_tokens=20) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        served.kill(f"ServeReplica:admin--{SINGLE}--r1")
        killed = time.monotonic()
        until(lambda: [answer for answer in requests.since(killed + 1) if answer.good], 60, what="answers again")
        until(lambda: not bad(requests.answers[-20:]), 60, what="twenty good answers")
    good = [answer for answer in requests.since(killed) if answer.good]
    recovered = min(answer.ended for answer in good) - killed
    untold = [answer for answer in requests.answers if not answer.good and not answer.told]
    told = sum(answer.told for answer in requests.answers)
    held = sum(answer.good and answer.seconds > 1 for answer in requests.answers)
    record("F3 requests neither answered nor told when to come back", len(untold), 0, note=f"{told} told, {held} held; {bad(untold)[:3]}")
    record("F3 time until the endpoint answers again", recovered, load_time + 15, unit="s", note=f"load time {load_time:g} s")


@pytest.mark.full
@pytest.mark.parametrize("stream", [True, False])
def test_the_engine_stops_working_for_clients_that_have_left(served, record, stream):
    """F16: ten at a time; with `max_concurrency` 64 none of them waits."""
    body = {"model": SINGLE, "messages": [{"role": "user", "content": "hello"}], "stream": stream, "max_tokens": 5000}

    def running():
        return served.manage("GET", f"/{SINGLE}/metrics").json()["running"]

    async def leave():
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {served.token}"}) as session:
            tasks = [asyncio.create_task(ask(session, served, body)) for _ in range(50)]
            await asyncio.to_thread(until, lambda: running() == 50, 30, what="fifty requests run")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(leave())
    left = time.monotonic()
    until(lambda: running() == 0, 10, what="nothing runs")
    kind = "streams" if stream else "whole answers"
    record(f"F16 time until the engine has stopped for 50 clients that left ({kind})", time.monotonic() - left, 2, unit="s")


async def ask(session, platform, body):
    async with session.post(f"{platform.url}/endpoints/admin/{body['model']}/v1/chat/completions", json=body) as answer:
        return await answer.read()
