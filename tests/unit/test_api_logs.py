"""An endpoint's logs over the management API, read and followed."""

import json

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
