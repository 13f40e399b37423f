"""An endpoint's events over the management API."""

from support.api import HUB_TIME, refused

from cluster import records


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
