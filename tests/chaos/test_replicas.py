"""Replicas and their servers die, and clients leave, while requests flow."""

import asyncio
import time

import aiohttp
import pytest
from support.load import Load, bad, latency
from support.nemesis import frozen
from support.platforms import until

PAIR, SINGLE = "pair", "single"


@pytest.fixture(scope="module")
def served(platform):
    """Two replicas of one endpoint, one of another."""
    platform.create(PAIR, echo={"tokensPerSecond": 100}, scaling={"minReplica": 2, "maxReplica": 2})
    platform.create(SINGLE, echo={"tokensPerSecond": 100})
    until(lambda: whole(platform), what="two replicas")
    yield platform
    platform.delete(PAIR)
    platform.delete(SINGLE)


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
    """F3. What the replica was answering has nowhere to go: HAProxy closes the client's connection, as HTTP wants of one kept alive."""
    load_time = served.status(SINGLE)["expectedSeconds"]
    with load(served, SINGLE, rate=10, max_tokens=20) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        served.kill(f"ServeReplica:admin--{SINGLE}--r1")
        killed = time.monotonic()
        until(lambda: [answer for answer in requests.since(killed + 1) if answer.good], 60, what="answers again")
        until(lambda: not bad(requests.answers[-20:]), 60, what="twenty good answers")
    later = requests.since(killed + 0.1)
    untold = [answer for answer in later if not answer.good and not answer.told]
    told, held = sum(answer.told for answer in later), sum(answer.good and answer.seconds > 1 for answer in later)
    broken = [answer for answer in requests.answers if answer.began < killed + 0.1 and not answer.good and not answer.told]
    recovered = min(answer.ended for answer in later if answer.good) - killed
    record("F3 requests neither answered nor told when to come back", len(untold), 0, note=f"{told} told, {held} held; {bad(untold)[:3]}")
    record("F3 requests in flight that broke off", len(broken), 4, note=f"rate x duration is 2; {bad(broken)[:1]}")
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


@pytest.mark.full
def test_a_server_that_stands_still_is_replaced_and_its_requests_move(served, record):
    """F14: SIGSTOP for as long as it takes."""
    load_time = served.status(PAIR)["expectedSeconds"]
    (victim, *_) = servers(served, PAIR)
    with load(served, max_tokens=20) as requests:
        until(lambda: len(requests.answers) > 40, what="requests flow")
        with frozen([victim]):
            stopped = time.monotonic()
            until(lambda: victim not in servers(served, PAIR), 90, what="the server is ended")
            ended = time.monotonic() - stopped
            until(lambda: whole(served), 60, what="the replica is replaced")
            replaced = time.monotonic() - stopped
        until(lambda: requests.since(stopped + replaced + 1), what="requests flow on")
    lost = [answer for answer in requests.answers if not answer.good and not answer.told]
    longest = max(answer.seconds for answer in requests.answers)
    moved = sum(answer.good and answer.seconds > 2 for answer in requests.answers)
    record("F14 time until a server that stands still is ended", ended, 30, unit="s", note="bar: three checks of 10 s")
    record("F14 time until its replica is replaced", replaced, 30 + load_time + 10, unit="s", note=f"load time {load_time:g} s")
    record("F14 requests lost", len(lost), 0, note=f"of {len(requests.answers)}, {moved} moved; {bad(lost)[:3]}")
    record("F14 longest wait of a request", longest, 60, unit="s")


@pytest.mark.full
def test_an_engine_that_crashes_again_and_again_is_given_up_with_its_reason(served, record):
    """F15"""
    served.create("brittle", echo={"failure": "crash"})
    try:
        with load(served, max_tokens=2) as others, load(served, "brittle", rate=1, max_tokens=2) as requests:
            began = time.monotonic()
            status = served.wait("brittle", "failed", 180)
            given_up = time.monotonic() - began
            until(lambda: served.chat("brittle").status_code == 503, what="refused")
            refused = served.chat("brittle")
        events = served.manage("GET", "/brittle/events").json()["items"]
        crashes = [event for event in events if event["reason"] == "EngineCrashed"]
        assert not servers(served, "brittle")
        assert status["reason"] == "CrashLoop" and status["message"]
        assert refused.json()["error"]["code"] == "failed" and status["message"] in refused.json()["error"]["message"]
        assert served.manage("POST", "/brittle/resume").status_code == 200
        served.wait("brittle")
    finally:
        served.delete("brittle")
    note = f"after {given_up:.0f} s; {len(requests.answers)} requests met it"
    record("F15 crashes until an endpoint is given up", len(crashes), 5, unit="crashes", note=note)
    record("F15 failed requests of other endpoints", len(bad(others.answers)), 0, note=f"of {len(others.answers)}")


def servers(platform, name):
    """Process ids of an endpoint's engine servers, without the lifeline processes above them."""
    lines = platform.processes().items()
    return sorted(pid for pid, line in lines if "deployments.echo_server" in line and f"--model {name} " in line and "lifeline" not in line)
