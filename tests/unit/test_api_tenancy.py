"""Tenants, namespaces, users and sharing over the management API."""

import pytest
from support import people
from support.api import ECHO, names, refused

from cluster import keys, records


@pytest.fixture
def team(api):
    """The key of tom, admin of the tenant `team`."""
    return people.user(api.store, "tom")


def whoami(api, key):
    return api.call("GET", "/manage/api/whoami-v2", key=key).json()


def create(api, key, namespace, name="demo-chat", **fields):
    answer = api.call("POST", f"/manage/v2/endpoint/{namespace}", {**ECHO, "name": name, **fields}, key=key)
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(api, key, path, body):
    return api.call("PUT", f"/manage/v2/endpoint/{path}", body, key=key)


def test_a_tenant_grows_from_nothing_to_a_working_member(api):
    assert api.call("POST", "/manage/v2/tenants", {"name": "acme", "description": "They pay."}).json()["name"] == "acme"
    refused(api.call("POST", "/manage/v2/tenants", {"name": "acme"}), 409, "already_exists")
    told = refused(api.call("POST", "/manage/v2/users", {"name": "ann", "tenant": "acme"}), 400, "invalid_request")
    assert "create one first" in told
    assert api.call("POST", "/manage/v2/namespaces", {"name": "acme-lab", "tenant": "acme"}).json()["tenant"] == "acme"
    ann = api.call("POST", "/manage/v2/users", {"name": "ann", "tenant": "acme", "role": "admin"}).json()
    assert (ann["namespace"], ann["role"], ann["kind"], ann["active"]) == ("acme-lab", "admin", "person", True)
    key = api.call("POST", "/manage/v2/keys", {"user": "ann"}).json()["key"]
    assert api.call("POST", "/manage/v2/namespaces", {"name": "acme-prod"}, key=key).json()["tenant"] == "acme"
    bob = {"name": "bob", "kind": "service", "namespaces": ["acme-prod"]}
    assert api.call("POST", "/manage/v2/users", bob, key=key).json()["namespace"] == "acme-prod"
    made = api.call("POST", "/manage/v2/keys", {"user": "bob"}, key=key).json()
    assert (made["user"], made["role"], made["namespace"]) == ("bob", "member", "acme-prod")
    assert create(api, made["key"], "acme-prod")["status"]["createdBy"]["name"] == "bob"
    who = whoami(api, made["key"])
    assert (who["name"], who["fullname"], who["orgs"], who["role"], who["tenant"]) == ("acme-prod", "bob", [], "member", "acme")
    refused(api.call("GET", "/manage/v2/endpoint/acme-lab", key=made["key"]), 404, "not_found")
    assert api.call("PATCH", "/manage/v2/users/bob", {"namespaces": []}, key=key).json()["namespaces"] == []
    assert [one["name"] for one in whoami(api, made["key"])["orgs"]] == ["acme-lab"]


def test_an_operator_acts_in_every_namespace_and_an_admin_in_those_of_its_tenant(api, team):
    api.store.add_namespace("other")
    assert names(api.call("GET", "/manage/v2/namespaces")) == ["admin", "other", "team"]
    assert names(api.call("GET", "/manage/v2/namespaces", key=team)) == ["team"]
    assert names(api.call("GET", "/manage/v2/tenants", key=team)) == ["team"]
    assert names(api.call("GET", "/manage/v2/users", key=team)) == ["tom"]
    assert names(api.call("GET", "/manage/v2/users")) == ["admin", "tom"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "namespaces", {"name": "x", "tenant": "admin"}),
        ("POST", "users", {"name": "x", "tenant": "admin"}),
        ("PATCH", "users/admin", {"active": False}),
        ("DELETE", "users/admin", None),
        ("GET", "users/admin", None),
        ("GET", "tenants/admin", None),
        ("DELETE", "namespaces/admin", None),
        ("POST", "keys", {"user": "admin"}),
        ("GET", "keys?user=admin", None),
    ],
)
def test_an_admin_reaches_nothing_of_another_tenant(api, team, method, path, body):
    answer = api.call(method, f"/manage/v2/{path}", body, key=team)
    if "?" in path:
        assert answer.json()["items"] == []
    else:
        refused(answer, 404, "not_found")
    assert api.store.user("admin").active


def test_nobody_hands_out_or_touches_more_than_it_has(api, team):
    api.store.add_user(records.User("boss", "team", "team", role="operator"))
    for method, path, body in (
        ("POST", "users", {"name": "x", "role": "operator"}),
        ("PATCH", "users/tom", {"role": "operator"}),
        ("PATCH", "users/boss", {"active": False}),
        ("DELETE", "users/boss", None),
        ("POST", "keys", {"user": "boss"}),
        ("POST", "keys", {"role": "operator"}),
    ):
        assert "operator" in refused(api.call(method, f"/manage/v2/{path}", body, key=team), 403, "forbidden")


@pytest.mark.parametrize("change", [("PATCH", {"role": "admin"}), ("PATCH", {"active": False}), ("DELETE", None)])
def test_the_last_operator_cannot_lock_himself_out(api, change):
    method, body = change
    assert "last active operator" in refused(api.call(method, "/manage/v2/users/admin", body), 409, "conflict")
    assert whoami(api, api.token)["role"] == "operator"


def test_the_keys_of_a_user_that_is_deactivated_or_deleted_are_refused(api, team):
    assert api.call("PATCH", "/manage/v2/users/tom", {"active": False}).json()["active"] is False
    refused(api.call("GET", "/manage/v2/namespaces", key=team), 401, "invalid_api_key")
    api.call("PATCH", "/manage/v2/users/tom", {"active": True})
    assert api.call("GET", "/manage/v2/namespaces", key=team).status_code == 200
    assert api.call("DELETE", "/manage/v2/users/tom").json() == {}
    refused(api.call("GET", "/manage/v2/namespaces", key=team), 401, "invalid_api_key")
    assert api.call("GET", f"/manage/v2/keys/{keys.key_id(team)}").json()["status"] == "revoked"


def test_a_change_of_role_holds_for_keys_that_there_are(api, team):
    api.call("PATCH", "/manage/v2/users/tom", {"role": "viewer"})
    refused(api.call("POST", "/manage/v2/endpoint/team", ECHO, key=team), 403, "forbidden")
    assert api.call("GET", "/manage/v2/endpoint/team", key=team).status_code == 200
    assert whoami(api, team)["role"] == "viewer"


def test_a_namespace_with_endpoints_in_it_is_not_deleted_and_the_answer_says_what_is_in_it(api, team):
    api.call("POST", "/manage/v2/namespaces", {"name": "lab"}, key=team)
    create(api, team, "lab")
    assert "endpoints demo-chat" in refused(api.call("DELETE", "/manage/v2/namespaces/lab", key=team), 409, "conflict")
    api.call("DELETE", "/manage/v2/endpoint/lab/demo-chat", key=team)
    assert api.call("DELETE", "/manage/v2/namespaces/lab", key=team).json() == {}
    refused(api.call("GET", "/manage/v2/namespaces/lab", key=team), 404, "not_found")
    assert "namespaces team; users tom" in refused(api.call("DELETE", "/manage/v2/tenants/team"), 409, "conflict")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("tenants", {"name": "Acme Inc."}),
        ("namespaces", {"name": "acme--lab"}),
        ("tenants", {}),
        ("namespaces", {"name": "-x"}),
        ("users", {"name": "u:x"}),
        ("users", {"name": "a b"}),
        ("users", {"name": "x", "role": "root"}),
        ("users", {"name": "x", "namespaces": ["elsewhere"]}),
        ("users", {"name": "x", "namespace": "elsewhere"}),
        ("users", {"name": "x", "role": "admin", "namespaces": ["admin"]}),
        ("keys", {"role": "root"}),
        ("keys", {"expiresAt": "2001-01-01T00:00:00Z"}),
        ("keys", {"expiresAt": "tomorrow"}),
        ("keys", {"budget": -1}),
    ],
)
def test_wrong_fields_are_refused(api, path, body):
    refused(api.call("POST", f"/manage/v2/{path}", body), 400, "invalid_request")


def test_lists_are_searched_and_come_page_by_page(api):
    for name in ("c", "a", "b"):
        api.call("POST", "/manage/v2/tenants", {"name": name, "description": f"number {name}"})
    first = api.call("GET", "/manage/v2/tenants?limit=2&search=NUMBER").json()
    assert ([row["name"] for row in first["items"]], first["cursor"]) == (["a", "b"], "b")
    rest = api.call("GET", f"/manage/v2/tenants?limit=2&cursor={first['cursor']}&search=number").json()
    assert ([row["name"] for row in rest["items"]], rest["cursor"]) == (["c"], None)
    refused(api.call("GET", "/manage/v2/users?limit=0"), 400, "invalid_request")


def test_a_repeated_request_makes_one_user(api, team):
    headers = {"Idempotency-Key": "once"}
    first, second = (api.call("POST", "/manage/v2/users", {"name": "bob"}, key=team, headers=headers) for _ in range(2))
    assert first.json() == second.json() and names(api.call("GET", "/manage/v2/users", key=team)) == ["bob", "tom"]


# Sharing


def test_only_owner_and_admins_say_who_may_call_an_endpoint(api, team):
    people.user(api.store, "eve", tenant="rival")
    owner, other = (people.user(api.store, name, "member") for name in ("ann", "bob"))
    create(api, owner, "team", type="private")
    for body, field in (
        ({"type": "public"}, "type"),
        ({"type": "authenticated"}, "type"),
        ({"networks": ["10.0.0.0/8"]}, "networks"),
        ({"type": "authenticated", "sharedWith": ["rival"]}, "sharedWith"),
    ):
        answer = change(api, other, "team/demo-chat", body)
        assert "ann" in refused(answer, 403, "forbidden") and answer.json()["param"] == field
    assert change(api, other, "team/demo-chat", {"description": "x"}).status_code == 200
    refused(api.call("DELETE", "/manage/v2/endpoint/team/demo-chat", key=other), 403, "forbidden")
    for key in (owner, team, api.token):
        assert change(api, key, "team/demo-chat", {"type": "authenticated", "sharedWith": ["rival"]}).json()["sharedWith"] == ["rival"]
        assert change(api, key, "team/demo-chat", {"sharedWith": []}).json()["sharedWith"] == []
    assert change(api, other, "team/demo-chat", {"type": "private"}).status_code == 200


def test_a_tenant_that_there_is_not_is_named_in_the_refusal(api, team):
    body = {**ECHO, "sharedWith": ["nobody"]}
    assert "'nobody'" in refused(api.call("POST", "/manage/v2/endpoint/team", body, key=team), 400, "invalid_request")
    create(api, team, "team", sharedWith=["*"])
    assert "'nobody'" in refused(change(api, team, "team/demo-chat", {"sharedWith": ["nobody"]}), 400, "invalid_request")


def test_what_is_shared_is_listed_for_the_tenants_it_is_shared_with_and_nothing_else_of_it(api, team):
    eve = people.user(api.store, "eve", "viewer", "rival")
    create(api, team, "team", "for-rivals", sharedWith=["rival"], description="Ours.")
    create(api, team, "team", "for-everybody", sharedWith=["*"])
    create(api, team, "team", "for-nobody")
    rows = {row["name"]: row for row in api.call("GET", "/manage/v2/shared", key=eve).json()["items"]}
    assert set(rows) == {"for-rivals", "for-everybody"}
    assert rows["for-rivals"] == {
        "name": "for-rivals",
        "namespace": "team",
        "url": rows["for-rivals"]["url"],
        "task": None,
        "description": "Ours.",
        "state": "running",
    }
    assert rows["for-rivals"]["url"].endswith("/endpoints/team/for-rivals")
    assert names(api.call("GET", "/manage/v2/shared")) == ["for-everybody"]
    assert names(api.call("GET", "/manage/v2/shared", key=team)) == []
    refused(api.call("GET", "/manage/v2/endpoint/team/for-rivals", key=eve), 404, "not_found")


def test_a_tenant_that_is_deleted_is_forgotten_by_what_was_shared_with_it(api, team):
    api.call("POST", "/manage/v2/tenants", {"name": "guest"})
    create(api, team, "team", sharedWith=["guest", "admin"])
    assert api.call("DELETE", "/manage/v2/tenants/guest").json() == {}
    assert api.call("GET", "/manage/v2/endpoint/team/demo-chat", key=team).json()["sharedWith"] == ["admin"]


def test_a_repeated_rotation_makes_one_key(api):
    made = api.call("POST", "/manage/v2/keys").json()
    headers, path = {"Idempotency-Key": "once"}, f"/manage/v2/keys/{made['id']}/rotate"
    first, second = (api.call("POST", path, {"overlapSeconds": 5}, headers=headers) for _ in range(2))
    assert first.status_code == 200 and first.json() == second.json()
    old = api.call("GET", f"/manage/v2/keys/{made['id']}").json()
    assert old["replacedBy"] == first.json()["id"] and old["status"] == "active"
    assert api.call("GET", "", key=first.json()["key"]).status_code == 200
