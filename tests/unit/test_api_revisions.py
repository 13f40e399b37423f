"""An endpoint's revisions over the management API."""

from support.api import refused


def test_revisions_are_listed_shown_and_gone_back_to(api):
    api.create(model={"image": {"echo": {"tag": "one"}}})
    row = api.store.endpoint("admin", "demo-chat")
    api.store.mark_revision(row.id, 1, live_at=5.0)
    api.store.note_endpoint(row.id, {"serving": 1})
    api.call("PUT", "/demo-chat", {"model": {"image": {"echo": {"tag": "two"}}}})
    api.store.mark_revision(row.id, 2, failed_at=6.0, reason="SmokeTestFailed", message="No.")
    found = api.call("GET", "/demo-chat/revisions").json()["items"]
    assert [(item["revision"], item["status"], item["reason"]) for item in found] == [
        (1, "serving", None),
        (2, "failed", "SmokeTestFailed"),
    ]
    assert api.call("GET", "/demo-chat/revisions/2").json() == found[1]
    refused(api.call("GET", "/demo-chat/revisions/3"), 404, "not_found")
    assert api.call("POST", "/demo-chat/rollback").json()["model"]["image"] == {"echo": found[0]["model"]["image"]["echo"]}
    for body in ({"revision": "1"}, {"revision": True}, {"to": 1}, {"revision": 1.5}):
        refused(api.call("POST", "/demo-chat/rollback", body), 400, "invalid_request")
