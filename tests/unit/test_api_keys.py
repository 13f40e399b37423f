"""Endpoint keys and platform keys over the management API: made, shown, edited and revoked."""

import pytest
from support.api import refused

from cluster import keys


def test_an_endpoint_key_is_made_shown_once_edited_and_revoked_for_good(api):
    api.create()
    made = api.call("POST", "/demo-chat/keys", {"description": "mine", "requestsPerMinute": 5}).json()
    assert (made["description"], made["status"], made["requestsPerMinute"], made["lastUsedAt"]) == ("mine", "active", 5, None)
    shown = api.call("GET", f"/demo-chat/keys/{made['id']}").json()
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert api.call("GET", f"/demo-chat/keys/{made['key']}").json() == shown
    assert api.call("PATCH", f"/demo-chat/keys/{made['id']}", {"description": "yours"}).json()["description"] == "yours"
    for _ in range(2):
        assert api.call("DELETE", f"/demo-chat/keys/{made['id']}").json()["status"] == "revoked"
    listed = api.call("GET", "/demo-chat/keys").json()["items"]
    assert [(item["description"], item["status"]) for item in listed] == [("First Key", "active"), ("yours", "revoked")]
    told = [event["kind"] for event in api.call("GET", "/demo-chat/events").json()["items"]]
    assert told == ["create", "key_added", "key_edited", "key_revoked"]


def test_the_first_key_is_neither_edited_nor_revoked(api):
    first = api.create()["apiKey"]["id"]
    refused(api.call("PATCH", f"/demo-chat/keys/{first}", {"description": "x"}), 409, "conflict")
    refused(api.call("DELETE", f"/demo-chat/keys/{first}"), 409, "conflict")


def test_a_key_of_another_endpoint_or_a_platform_key_is_not_found_there(api):
    other = api.create("other-one")["apiKey"]
    api.create()
    for name in (other["id"], other["key"], api.token, keys.key_id(api.token), "a\0b", "x" * 12, "%2e%2e"):
        for method in ("GET", "DELETE"):
            refused(api.call(method, f"/demo-chat/keys/{name}".replace("\0", "%00")), 404, "not_found")


def test_a_forged_key_with_the_id_of_a_real_one_is_not_found(api):
    made = api.create()["apiKey"]
    body = f"moor_e_{made['id']}_{'A' * 32}"
    refused(api.call("GET", f"/demo-chat/keys/{body}{keys._checksum(body)}"), 404, "not_found")


@pytest.mark.parametrize("body", [{"description": 7}, {"desc": "x"}, {"description": "x" * 501}, {"requestsPerMinute": -1}])
def test_a_wrong_key_body_is_refused(api, body):
    api.create()
    refused(api.call("POST", "/demo-chat/keys", body), 400, "invalid_request")


def test_platform_keys_are_made_listed_used_and_revoked(api):
    made = api.call("POST", "/manage/v2/keys", {"description": "for the build"}).json()
    assert api.call("GET", "", key=made["key"]).status_code == 200
    assert made["id"] in {item["id"] for item in api.call("GET", "/manage/v2/keys").json()["items"]}
    refused(api.call("DELETE", f"/manage/v2/keys/{made['id']}", key=made["key"]), 409, "conflict")
    assert api.call("DELETE", f"/manage/v2/keys/{made['id']}").json()["status"] == "revoked"
    refused(api.call("GET", "", key=made["key"]), 401, "invalid_api_key")
