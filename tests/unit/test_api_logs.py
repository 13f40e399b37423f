"""An endpoint's logs over the management API, read and followed."""

import json

from support.api import refused

from cluster import log_store, messages


def test_logs_are_read_and_filtered(api):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello"), messages.LogLine(2.0, "error", "oh")])
    api.logs.append("admin", "demo-chat", "r2", [messages.LogLine(3.0, "warning", "hm")])

    def asked(query=""):
        return [item["text"] for item in api.call("GET", f"/demo-chat/logs?{query}").json()["items"]]

    assert asked() == ["hello", "oh", "hm"]
    assert asked("level=warning") == ["oh", "hm"]
    assert asked("replica=r1&tail=1") == ["oh"]
    assert asked("replica=../r1") == []
    assert asked("since=3") == ["hm"]


def test_followed_logs_are_a_json_object_per_line_until_the_endpoint_goes(api, monkeypatch):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello")])

    async def follow(*_, **__):
        yield log_store.LogEntry(1.0, "info", "r1", "hello")
        yield None
        yield log_store.LogEntry(2.0, "info", "r1", "again")

    monkeypatch.setattr(api.logs, "follow", follow)
    answer = api.call("GET", "/demo-chat/logs?follow=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.text.split("\n")
    assert [json.loads(line)["text"] for line in lines if line] == ["hello", "again"]
    assert lines[1] == ""


def test_logs_are_paged_backwards_and_bounded_in_time(api):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(float(at), "info", f"line {at}") for at in range(1, 6)])
    first = api.call("GET", "/demo-chat/logs?tail=2").json()
    assert [item["text"] for item in first["items"]] == ["line 4", "line 5"]
    second = api.call("GET", f"/demo-chat/logs?tail=2&before={first['cursor']}").json()
    assert [item["text"] for item in second["items"]] == ["line 2", "line 3"]
    last = api.call("GET", f"/demo-chat/logs?tail=2&before={second['cursor']}").json()
    assert ([item["text"] for item in last["items"]], last["cursor"]) == (["line 1"], None)
    assert [item["text"] for item in api.call("GET", "/demo-chat/logs?since=2&until=3").json()["items"]] == ["line 2", "line 3"]
    for query in ("before=x", "until=soon", "text=" + "x" * 300):
        refused(api.call("GET", f"/demo-chat/logs?{query}"), 400, "invalid_request")
