"""Updates under load: a good one moves the traffic, a broken one changes nothing, and neither costs a request."""

import time

import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "changing"


@pytest.fixture
def changing(platform):
    platform.create(NAME, echo={"tag": "one", "tokensPerSecond": 50})
    yield platform
    platform.delete(NAME)


def short(platform):
    return load(platform, max_tokens=2)


def streams(platform):
    """Streams of four seconds each."""
    return load(platform, rate=3, stream=True, max_tokens=200)


def load(platform, rate=20, **fields):
    body = {"model": NAME, "messages": [{"role": "user", "content": "one two three four five"}], **fields}
    return Load(f"{platform.url}/endpoints/admin/{NAME}/v1/chat/completions", platform.token, rate=rate, body=body)


def update(platform, **changes):
    answer = platform.manage("PUT", f"/{NAME}", changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_good_update_under_load_fails_no_request_and_cuts_no_stream(changing):
    first = changing.status(NAME)["revision"]
    with short(changing) as requests, streams(changing) as long:
        until(lambda: len(requests.answers) > 20 and long.answers, what="requests flow")
        state = update(changing, model={"image": {"echo": {"tag": "two", "tokensPerSecond": 50, "loadSeconds": 1}}})["status"]["state"]
        assert state == "updating"
        changing.wait(NAME)
        moved = time.monotonic()
        until(lambda: len(requests.since(moved + 1)) > 20, what="requests after the move")
    assert not bad(requests.answers)
    assert not bad(long.answers)
    assert {answer.tag for answer in requests.answers} == {"one", "two"}
    assert {answer.tag for answer in requests.since(moved + 1)} == {"two"}
    assert changing.status(NAME)["revision"] == first + 1
    until(lambda: not [line for line in changing.processes().values() if f"{NAME}--r{first}:" in line], what="the old replica is gone")


@pytest.mark.parametrize("failure", ["load", "smoke"])
def test_a_broken_update_under_load_fails_no_request_and_can_be_rolled_back(changing, failure):
    first = changing.status(NAME)["revision"]
    with short(changing) as requests, streams(changing) as long:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        update(changing, model={"image": {"echo": {"tag": "broken", "failure": failure}}})
        status = changing.wait(NAME, "updateFailed")
        until(lambda: len(requests.since(time.monotonic() - 0.5)) > 5, what="requests flow on")
    assert not bad(requests.answers)
    assert not bad(long.answers)
    assert {answer.tag for answer in requests.answers} == {"one"}
    assert status["reason"] and status["message"]
    assert status["readyReplica"] == 1
    events = changing.manage("GET", f"/{NAME}/events").json()["items"]
    assert any(event["kind"] == "failed" and event["revision"] == first + 1 and event["message"] == status["message"] for event in events)
    answer = changing.manage("POST", f"/{NAME}/rollback", {})
    assert answer.status_code == 200, answer.text
    changing.wait(NAME)
    assert changing.chat(NAME).json()["system_fingerprint"] == "one"


def test_a_change_of_scaling_restarts_no_replica(changing):
    def replicas():
        return {pid for pid, line in changing.processes().items() if f"ServeReplica:admin--{NAME}" in line}

    before, revision = replicas(), changing.status(NAME)["revision"]
    update(changing, compute={"scaling": {"minReplica": 2, "maxReplica": 3}})
    until(lambda: changing.status(NAME)["readyReplica"] == 2, what="a second replica")
    assert before < replicas()
    assert changing.status(NAME)["revision"] == revision


def test_recreate_stops_the_old_revision_first(changing):
    update(changing, strategy="recreate")
    update(changing, model={"image": {"echo": {"tag": "two", "loadSeconds": 1}}})
    changing.wait(NAME)
    assert changing.chat(NAME).json()["system_fingerprint"] == "two"


def test_a_restart_replaces_the_replicas_without_a_gap(changing):
    with short(changing) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        before = {pid for pid, line in changing.processes().items() if f"ServeReplica:admin--{NAME}" in line}
        assert changing.manage("POST", f"/{NAME}/restart").status_code == 200
        until(
            lambda: not before & {pid for pid, line in changing.processes().items() if "ServeReplica" in line},
            what="the old replica is gone",
        )
        until(lambda: len(requests.since(time.monotonic() - 0.5)) > 5, what="requests flow on")
    assert not bad(requests.answers)
