"""The answer to a change waits until the gateways have it; other answers do not."""

from support.api import ECHO


def test_a_change_is_answered_when_it_is_in_force(api):
    api.create()
    assert api.waits == 1
    key = api.call("POST", "/demo-chat/keys", {}).json()
    api.call("DELETE", f"/demo-chat/keys/{key['id']}")
    api.call("PUT", "/demo-chat", {"type": "public"})
    api.call("POST", "/demo-chat/pause")
    api.call("DELETE", "/demo-chat")
    assert api.waits == 6


def test_reading_and_refusals_do_not_wait(api):
    api.create()
    waits = api.waits
    assert api.call("GET", "").status_code == 200
    assert api.call("GET", "/demo-chat").status_code == 200
    assert api.call("POST", "", {**ECHO, "name": "demo-chat"}).status_code == 409
    assert api.call("PUT", "/demo-chat", {"nonsense": 1}).status_code == 400
    assert api.call("DELETE", "/nobody").status_code == 404
    assert api.call("POST", "", ECHO, key="").status_code == 401
    assert api.waits == waits
