"""Updates, bursts, overload and scaling to zero under load: nobody is told anything worse than to come back."""

import concurrent.futures
import time

import httpx
import pytest
from support.load import Load, bad, latency
from support.platforms import until

NAME = "changing"
ZERO = {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 30}


@pytest.fixture
def endpoint(platform):
    """Creates endpoints that go with the test."""
    made = []

    def create(name, **fields):
        platform.create(name, **fields)
        made.append(name)
        return name

    yield create
    for name in made:
        platform.delete(name)


@pytest.fixture
def changing(platform, endpoint):
    endpoint(NAME, echo={"tag": "one", "tokensPerSecond": 50})
    return platform


def load(platform, rate=20, name=NAME, **fields):
    body = {"model": name, "messages": [{"role": "user", "content": "one two three four five"}], **fields}
    return Load(f"{platform.url}/endpoints/admin/{name}/v1/chat/completions", platform.token, rate=rate, body=body)


def update(platform, **echo):
    answer = platform.manage("PUT", f"/{NAME}", {"model": {"image": {"echo": {"tokensPerSecond": 50, **echo}}}})
    assert answer.status_code == 200, answer.text


def test_a_good_update_fails_no_request_and_cuts_no_stream(changing, record):
    """F17"""
    first = changing.status(NAME)["revision"]
    with load(changing, max_tokens=2) as requests, load(changing, rate=1, stream=True, max_tokens=500) as streams:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        update(changing, tag="two", loadSeconds=1)
        changing.wait(NAME)
        moved = time.monotonic()
        until(lambda: len(requests.answers) >= 900, 60, what="900 answers")
    assert {answer.tag for answer in requests.since(moved + 1)} == {"two"}
    assert changing.status(NAME)["revision"] == first + 1
    switched = min(answer.began for answer in requests.answers if answer.tag == "two")
    across = [answer for answer in streams.answers if answer.began < switched < answer.ended and answer.tag == "one"]
    assert across, "streams ran while the traffic moved"
    mixed = [answer.tag for answer in (*requests.answers, *streams.answers) if "+" in answer.tag]
    record("F17 failed requests during a good update", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")
    record(
        "F17 streams of 10 s cut by a good update", len(bad(streams.answers)), 0, note=f"of {len(streams.answers)}, {len(across)} across it"
    )
    record("F17 answers that two revisions share", len(mixed), 0)


@pytest.mark.parametrize("failure", ["load", pytest.param("smoke", marks=pytest.mark.full)])
def test_a_broken_update_fails_no_request_and_can_be_rolled_back(changing, record, failure):
    """F18"""
    first = changing.status(NAME)["revision"]
    with load(changing, max_tokens=2) as requests, load(changing, rate=1, stream=True, max_tokens=200) as streams:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        update(changing, tag="broken", failure=failure)
        status = changing.wait(NAME, "updateFailed")
        told = time.monotonic()
        until(lambda: requests.since(told + 1), what="requests flow on")
    assert {answer.tag for answer in requests.answers} == {"one"}
    assert status["reason"] and status["message"] and status["readyReplica"] == 1
    events = changing.manage("GET", f"/{NAME}/events").json()["items"]
    assert any(event["kind"] == "failed" and event["revision"] == first + 1 and event["message"] == status["message"] for event in events)
    answer = changing.manage("POST", f"/{NAME}/rollback", {})
    assert answer.status_code == 200, answer.text
    changing.wait(NAME)
    assert changing.chat(NAME).json()["system_fingerprint"] == "one"
    answers = [*requests.answers, *streams.answers]
    record(f"F18 failed requests during an update that fails ({failure})", len(bad(answers)), 0, note=f"of {len(answers)}")


@pytest.mark.full
def test_a_restart_leaves_no_gap(changing, record):
    """F17, with the same revision: a restart."""

    def replicas():
        return {pid for pid, line in changing.processes().items() if f"ServeReplica:admin--{NAME}" in line}

    with load(changing, max_tokens=2) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        before = replicas()
        assert changing.manage("POST", f"/{NAME}/restart").status_code == 200
        until(lambda: not before & replicas(), what="the old replica is gone")
        gone = time.monotonic()
        until(lambda: requests.since(gone + 1), what="requests flow on")
    record("F17 failed requests during a restart", len(bad(requests.answers)), 0, note=f"of {len(requests.answers)}")


def asleep(platform, name):
    assert platform.manage("POST", f"/{name}/scale-to-zero").status_code == 200
    until(lambda: not [line for line in platform.processes().values() if f"admin--{name}--" in line], what=f"{name} has no replica")
    assert platform.status(name)["state"] == "scaledToZero"


def burst(platform, name, count):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: platform.chat(name), range(count)))


def wakes(platform, name):
    return [event for event in platform.manage("GET", f"/{name}/events").json()["items"] if event["kind"] == "waking"]


def test_a_burst_at_zero_is_answered_whole_with_one_wake(platform, endpoint, record):
    """F19"""
    name = endpoint("burst", echo={"loadSeconds": 2}, scaling=ZERO)
    load_time = platform.status(name)["expectedSeconds"]
    asleep(platform, name)
    began = time.monotonic()
    answers = burst(platform, name, 100)
    seconds = time.monotonic() - began
    assert len(wakes(platform, name)) == 1
    record("F19 of 100 at zero answered 200", sum(answer.status_code == 200 for answer in answers), 100, at_most=False)
    record("F19 time until all 100 are answered", seconds, load_time + 10, unit="s", note=f"load time {load_time:g} s")


@pytest.mark.full
def test_beyond_the_bound_a_burst_at_zero_is_told_when_to_come_back(platform, endpoint, record):
    """F19"""
    name = endpoint("bounded", echo={"loadSeconds": 3}, scaling=ZERO | {"maxQueue": 20})
    asleep(platform, name)
    answers = burst(platform, name, 100)
    refused = [answer for answer in answers if answer.status_code == 503]
    told = [answer for answer in refused if int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["code"] == "starting"]
    assert len(wakes(platform, name)) == 1
    record("F19 of 100 at zero answered with a bound of 20", sum(answer.status_code == 200 for answer in answers), 20, at_most=False)
    record("F19 of 100 at zero told when to come back", len(told), 80, at_most=False)


@pytest.mark.full
def test_five_times_the_capacity_is_refused_at_once_and_the_rest_is_served(platform, endpoint, record):
    """F20: four at a time, half a second each; two may wait."""
    name = endpoint("busy", echo={"tokensPerSecond": 40, "maxConcurrency": 4}, scaling={"maxQueue": 2})
    with load(platform, rate=4, name=name, max_tokens=20) as alone:
        until(lambda: len(alone.answers) >= 40, 30, what="forty answers")
    with load(platform, rate=40, name=name, max_tokens=20) as crowd:
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 60, 70, every=0.5, what="a minute")
    over = time.monotonic()
    until(lambda: platform.chat(name, max_tokens=20).status_code == 200, 30, what="an answer")
    recovered = time.monotonic() - over
    refused = [answer for answer in crowd.answers if not answer.good]
    waits = sorted(answer.seconds for answer in refused)
    calm, crowded = latency(alone.answers, 0.99), latency(crowd.answers, 0.99)
    good = len(crowd.answers) - len(refused)
    note = f"{good} of {len(crowd.answers)} accepted; {crowded:.2f} s over {calm:.2f} s"
    record("F20 p99 of accepted requests over the calm one, at five times the capacity", crowded / calm, 2, unit="x", note=note)
    record("F20 refused without Retry-After", sum(not answer.told for answer in refused), 0, note=str(bad(refused)[:2]))
    record("F20 time of a refusal, p95", waits[int(0.95 * len(waits))], 0.05, unit="s", note=f"median {waits[len(waits) // 2]:.4f} s")
    record("F20 accepted of what the engine can do", good / (60 / 0.5 * 4), 0.8, at_most=False)
    record("F20 time until a request is accepted again", recovered, 10, unit="s")


@pytest.mark.full
def test_requests_at_the_moment_of_scaling_to_zero_are_answered(platform, endpoint, record):
    """F21: 200 requests from before the moment to after it, in ten rounds."""
    name = endpoint("racing", scaling=ZERO)
    answers = []
    for _ in range(10):
        platform.wait(name)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            began = time.monotonic()
            asked = [pool.submit(late, platform, name, began + 0.02 * number) for number in range(20)]
            assert platform.manage("POST", f"/{name}/scale-to-zero").status_code == 200
            answers += [one.result() for one in asked]
    failed = [(answer.status_code, answer.text[-200:]) for answer in answers if answer.status_code != 200]
    record("F21 failed requests at the moment of scaling to zero", len(failed), 0, note=f"of {len(answers)}; {failed[:3]}")


def late(platform, name, moment):
    """A request begun at `moment` (time.monotonic)."""
    time.sleep(max(0.0, moment - time.monotonic()))
    try:
        return platform.chat(name, max_tokens=1)
    except httpx.TransportError as exc:
        return httpx.Response(599, text=repr(exc))
