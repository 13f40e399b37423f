"""Endpoints at zero: held and woken once; idle ones go to sleep. Bursts at zero are cases of tests/chaos."""

import time

import httpx
import pytest
from support.platforms import until

ZERO = {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 30}


@pytest.fixture
def sleeping(platform):
    """Creates an endpoint at zero with the given scaling."""
    made = []

    def make(name, scaling=None, **echo):
        platform.create(name, echo=echo, scaling=ZERO | (scaling or {}))
        made.append(name)
        assert platform.manage("POST", f"/{name}/scale-to-zero").status_code == 200
        until(lambda: not [line for line in platform.processes().values() if f"admin--{name}--" in line], what=f"{name} has no replica")
        assert platform.status(name)["state"] == "scaledToZero"
        return name

    yield make
    for name in made:
        platform.delete(name)


def wakes(platform, name):
    return [event for event in platform.manage("GET", f"/{name}/events").json()["items"] if event["kind"] == "waking"]


def test_a_client_that_will_not_wait_is_told_at_once_and_the_endpoint_wakes_all_the_same(platform, sleeping):
    name = sleeping("impatient", loadSeconds=1)
    began = time.monotonic()
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {platform.token}", "X-Scale-Up-Timeout": "0"}
    answer = httpx.post(f"{platform.url}/endpoints/admin/{name}/v1/chat/completions", json=body, headers=headers)
    assert time.monotonic() - began < 1
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")
    assert "retry-after" in answer.headers
    platform.wait(name)


def test_a_request_on_the_shared_path_wakes_too_and_a_stream_is_relayed_as_it_comes(platform, sleeping):
    name = sleeping("shared-wake", tokensPerSecond=10)
    body = {"model": name, "messages": [{"role": "user", "content": "a b c d e"}], "stream": True, "max_tokens": 10}
    arrivals = []
    with platform.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: "):
                arrivals.append(time.monotonic())
    assert line == "" or line == "data: [DONE]"
    assert arrivals[-1] - arrivals[0] > 0.5


def test_an_idle_endpoint_sleeps_says_so_and_answers_the_next_request(platform):
    settings = {"image": {"echo": {"wakeSeconds": 0.3}}, "settings": {"system": {"sleepTimeout": 0.5 / 60}}}
    platform.create("napper", model=settings)
    status = until(lambda: (seen := platform.status("napper"))["reason"] == "Sleeping" and seen, what="asleep")
    assert (status["state"], status["readyReplica"]) == ("running", 1)
    assert status["message"] == "Asleep: the next request wakes it."
    assert platform.chat("napper", "good morning", max_tokens=2).json()["choices"][0]["message"]["content"] == "good morning"
    told = until(lambda: [e for e in platform.manage("GET", "/napper/events").json()["items"] if e["kind"] == "awake"], what="awake")
    assert told[0]["message"] == "A request woke the engine in 0.3 s."
    platform.kill("ray::ServeReplica:manager")
    until(lambda: platform.manage("GET", "/napper").status_code == 200 and platform.status("napper")["reason"] == "Sleeping", what="asleep")
    assert platform.chat("napper", "again", max_tokens=1).status_code == 200
    platform.delete("napper")


def test_a_paused_endpoint_answers_503_paused_at_once_and_is_not_woken(platform, sleeping):
    name = sleeping("paused-one")
    assert platform.manage("POST", f"/{name}/pause").status_code == 200
    began = time.monotonic()
    answer = platform.chat(name)
    assert time.monotonic() - began < 2
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "paused")
    assert "retry-after" not in answer.headers
    assert platform.status(name)["state"] == "paused"
    assert platform.manage("POST", f"/{name}/resume").status_code == 200
    platform.wait(name)


def test_an_idle_endpoint_goes_to_zero_by_itself_and_comes_back_by_the_first_request(platform):
    platform.create("idler", scaling=ZERO | {"scaleToZeroTimeout": 0.05})
    try:
        platform.wait("idler", "scaledToZero", timeout=30)
        assert platform.chat("idler").status_code == 200
        assert len(wakes(platform, "idler")) == 1
        platform.wait("idler", "scaledToZero", timeout=30)
        used = until(lambda: (seen := platform.manage("GET", "/idler/usage").json()["capacity"]["total"])["scaledToZero"] == 2 and seen)
        assert used["idleBeforeZeroSeconds"] >= 6 and used["startingSeconds"] > 0
        assert used["idleSeconds"] >= used["idleBeforeZeroSeconds"] - 4
    finally:
        platform.delete("idler")


def test_a_running_stream_keeps_an_endpoint_from_going_to_zero(platform):
    platform.create("streamer", echo={"tokensPerSecond": 10}, scaling=ZERO | {"scaleToZeroTimeout": 0.05})
    try:
        body = {"model": "streamer", "messages": [{"role": "user", "content": "a b c"}], "stream": True, "max_tokens": 100}
        url = "/endpoints/admin/streamer/v1/chat/completions"
        with platform.client() as client, client.stream("POST", url, json=body) as answer:
            text = "".join(answer.iter_text())
        assert text.rstrip().endswith("data: [DONE]")
        assert not wakes(platform, "streamer")
    finally:
        platform.delete("streamer")
