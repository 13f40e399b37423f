"""Processes are killed while requests flow; the bytes' path may not notice."""

import time

import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "survivor"


@pytest.fixture(scope="module")
def broken(new_platform):
    """A platform of its own, with an endpoint of two replicas."""
    with new_platform() as platform:
        platform.create(NAME, echo={"tokensPerSecond": 100}, scaling={"minReplica": 2, "maxReplica": 2})
        until(lambda: platform.status(NAME)["readyReplica"] == 2, what="two replicas")
        yield platform


def requests(platform, **fields):
    body = {"model": NAME, "messages": [{"role": "user", "content": "one two three four five"}], **fields}
    return Load(f"{platform.url}/endpoints/admin/{NAME}/v1/chat/completions", platform.token, rate=20, body=body)


def healthy(platform):
    status = platform.status(NAME)
    return status["state"] == "running" and status["readyReplica"] == 2


@pytest.mark.parametrize("victim", [("ServeController",), ("Manager",), ("Gateway",)])
def test_killing_a_control_process_fails_no_request(broken, victim):
    with requests(broken) as load:
        until(lambda: len(load.answers) > 20, what="requests flow")
        broken.kill("ray::", *victim)
        began = time.monotonic()
        until(lambda: len(load.since(began + 8)) > 20, what="requests after the kill")
        load.stop()
    assert not bad(load.answers)
    assert len(load.answers) > 150
    until(lambda: broken.fetch("/manage/health").status_code == 200, 45, what="the manager is back")
    until(lambda: healthy(broken), 45, what="two replicas running")
    # the platform can still be changed: everything needed for that is back
    broken.create("afterwards")
    assert broken.chat("afterwards").status_code == 200
    broken.delete("afterwards")


def test_killing_one_of_two_replicas_fails_only_what_it_was_answering(broken):
    with requests(broken, max_tokens=5) as load, requests(broken, stream=True, max_tokens=200) as streams:
        until(lambda: len(load.answers) > 20 and len(streams.answers) > 1, what="requests flow")
        broken.kill(f"ServeReplica:admin--{NAME}--r1", most=1)
        killed = time.monotonic()
        until(lambda: broken.status(NAME)["readyReplica"] < 2, 20, what="the loss is seen")
        until(lambda: healthy(broken), 45, what="the replica is replaced")
        recovered = time.monotonic() - killed
        until(lambda: load.since(killed + 3), what="requests after the kill")
    assert not bad(load.since(killed + 0.2)), "requests begun after the kill"
    assert not bad(streams.since(killed + 0.2)), "streams begun after the kill"
    cut = [answer for answer in streams.answers if not answer.good]
    assert cut, "some streams were running on the killed replica"
    for answer in cut:
        assert answer.error, f"a stream that broke must not end like a finished one: {answer.text[-100:]}"
        assert "[DONE]" not in answer.text
    assert recovered < broken.status(NAME)["expectedSeconds"] + 15
