"""An endpoint's events over the management API."""

import asyncio
import json
import threading

from support.api import HUB_TIME, refused

from cluster import records
from cluster.api import event_stream


def test_events_are_filtered_by_level_time_and_what_was_seen(api):
    made = api.create()
    rows = [records.Event(made["id"], 100.0 + number, "phase", f"n{number}", "error" if number == 2 else "info") for number in range(4)]
    api.store.add_events(rows)
    found = api.call("GET", "/demo-chat/events").json()["items"]
    assert [item["message"] for item in found][1:] == ["n0", "n1", "n2", "n3"]
    assert HUB_TIME.fullmatch(found[0]["at"])

    def asked(query):
        return [item["message"] for item in api.call("GET", f"/demo-chat/events?{query}").json()["items"]]

    assert asked("level=error") == ["n2"]
    assert asked(f"after={found[2]['id']}") == ["n1", "n2", "n3"][1:]
    assert asked("limit=1") == ["n3"]
    assert asked("since=102")[-2:] == ["n2", "n3"]
    assert asked("since=1970-01-01T00:01:43Z")[-1:] == ["n3"]
    for query in ("after=-1", "after=" + "9" * 30, "limit=0", "level=loud", "since=nan", "since=inf", "since=soon", "since=" + "9" * 30):
        refused(api.call("GET", f"/demo-chat/events?{query}"), 400, "invalid_request")


def test_events_are_filtered_by_kind_replica_text_and_end_and_paged_backwards(api):
    made = api.create()
    rows = [
        records.Event(made["id"], 101.0, "phase", "Loading the weights.", replica="r1"),
        records.Event(made["id"], 102.0, "phase", "Warming up.", replica="r2"),
        records.Event(made["id"], 103.0, "live", "It is live: 100%."),
    ]
    api.store.add_events(rows)

    def asked(query):
        return [item["message"] for item in api.call("GET", f"/demo-chat/events?{query}").json()["items"]]

    assert asked("kind=phase") == ["Loading the weights.", "Warming up."]
    assert asked("replica=r2") == ["Warming up."]
    assert asked("text=WEIGHTS") == ["Loading the weights."]
    assert asked("text=%25") == ["It is live: 100%."]
    assert asked("until=101.5") == ["Loading the weights."]
    first = api.call("GET", "/demo-chat/events?limit=2").json()
    assert [item["message"] for item in first["items"]] == ["Warming up.", "It is live: 100%."]
    assert asked(f"limit=1&before={first['cursor']}") == ["Loading the weights."]


def test_followed_events_come_once_each_until_the_endpoint_goes(api):
    made = api.create()
    first = [records.Event(made["id"], 101.0, "phase", f"n{number}") for number in range(3)]
    api.store.add_events(first)
    reads = []

    def read(wanted, limit):
        reads.append(limit)
        if len(reads) == 2:
            api.store.add_events([records.Event(made["id"], 102.0, "live", "Live.")])
        return None if len(reads) > 30 else api.store.events(made["id"], wanted, limit=limit)

    async def followed():
        return [line async for line in event_stream.lines(read, records.EventsWanted(kind="phase"), 2, poll_s=0)]

    lines = asyncio.run(followed())
    assert [json.loads(line)["message"] for line in lines if line.strip()] == ["n1", "n2"]
    assert "\n" in lines  # a sign of life while it is quiet

    reads.clear()

    async def all_followed():
        return [line async for line in event_stream.lines(read, records.EventsWanted(since=101.0, until=1e9), 2, poll_s=0)]

    lines = asyncio.run(all_followed())
    assert [json.loads(line)["message"] for line in lines if line.strip()][-1] == "Live."


def test_following_events_of_an_endpoint_is_ndjson_that_ends_with_it(api):
    api.create()
    threading.Timer(1.0, lambda: api.call("DELETE", "/demo-chat")).start()
    answer = api.call("GET", "/demo-chat/events?follow=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[0])["kind"]
