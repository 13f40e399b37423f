"""Logs of real replicas, followed through the edge: as they come, and no longer than the endpoint lives."""

import json
import threading

import pytest
from support.platforms import until


@pytest.fixture
def talking(platform):
    platform.create("talking")
    yield platform
    platform.delete("talking")


def test_followed_logs_come_as_they_are_written_and_end_with_the_endpoint(talking):
    seen, ended = [], threading.Event()

    def follow():
        with talking.client() as client, client.stream("GET", "/manage/v2/endpoint/admin/talking/logs?follow=true") as answer:
            for line in answer.iter_lines():
                if line.strip():
                    seen.append(json.loads(line))
        ended.set()

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    until(lambda: seen, 15, what="what was logged until now")
    before = len(seen)
    talking.manage("POST", "/talking/restart")
    until(lambda: len({line["replica"] for line in seen}) > 1, 60, what="lines of the new replica")
    assert len(seen) > before
    assert {"at", "level", "replica", "text"} == set(seen[-1])
    talking.manage("DELETE", "/talking")
    assert ended.wait(15)
    assert talking.manage("GET", "/talking/logs").status_code == 404


def test_many_followers_do_not_keep_the_api_from_answering(talking):
    with talking.client() as client:
        answers = [
            client.send(client.build_request("GET", "/manage/v2/endpoint/admin/talking/logs?follow=true"), stream=True) for _ in range(60)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert talking.get("talking")["name"] == "talking"
        for answer in answers:
            answer.close()
    assert talking.get("talking")["name"] == "talking"
