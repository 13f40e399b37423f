"""Lists of the management API come whole, or page by page, each in the same manner."""

import pytest
from support import changes, people
from support.api import refused
from support.cli import runner

from cluster import keys, records, roles
from cluster.cli import client

BOUNDED = {"/v2/endpoint/{namespace}/{name}/adapters", "/v2/settings"}
"""Lists that hold no more than an endpoint's settings may, or than an engine has."""
AMONG = {"audit": "cursor", "events": "before", "logs": "before", "requests": "cursor"}
"""Logs, which are read from the newest on and have a page where none is asked for."""


def tenants(api):
    for number in range(5):
        api.store.add_tenant(records.Tenant(f"t-{number}"))
    return "/manage/v2/tenants"


def namespaces(api):
    for number in range(5):
        api.store.create_namespace(records.Namespace(f"n-{number}", "admin"))
    return "/manage/v2/namespaces"


def users(api):
    for name in ("a", "a-b", "a.b", "a@b", "a_b"):
        people.user(api.store, name, tenant="admin")
    return "/manage/v2/users"


def platform_keys(api):
    """Some made at the same time, some a moment apart, and one of an earlier year."""
    for number in range(5):
        people.key(api.store, "admin", created_at=1_800_000_000.0 + number // 2 * 3e-7, description=f"number {number}")
    people.key(api.store, "admin", created_at=900_000_000.0)
    return "/manage/v2/keys"


def endpoint_keys(api):
    api.create()
    for _ in range(4):
        api.call("POST", "/demo-chat/keys")
    return "/manage/v2/endpoint/admin/demo-chat/keys"


def secrets(api):
    for number in range(5):
        api.call("POST", "/manage/v2/secrets/admin", {"name": f"hush-{number}", "value": "x"})
    return "/manage/v2/secrets/admin"


def integrations(api):
    for number in range(5):
        api.call("POST", "/manage/v2/integrations/admin", {"name": f"hub-{number}", "kind": "huggingface", "values": {"token": "hf_x"}})
    return "/manage/v2/integrations/admin"


def models(api):
    for _ in range(5):
        changes.model(api)
    return "/manage/v2/models/admin"


def versions(api):
    for number in range(11):
        body = {"name": "chat", "repository": "org/model", "revision": f"{number:040x}"}
        assert api.call("POST", "/manage/v2/models/admin", body).status_code == 200
    return "/manage/v2/models/admin/chat/versions"


def endpoints(api):
    for number in range(5):
        api.create(f"chat-{number}")
    return "/manage/v2/endpoint/admin"


def revisions(api):
    api.create()
    for number in range(10):
        api.call("PUT", "/demo-chat", {"model": {"image": {"echo": {"tokensPerSecond": number + 1}}}})
    return "/manage/v2/endpoint/admin/demo-chat/revisions"


def shared(api):
    for tenant in ("a", "a-b"):
        key = people.user(api.store, f"user-of-{tenant}", roles.ADMIN, tenant)
        for number in range(3):
            fields = {"name": f"chat-{number}", "model": {"image": {"echo": {}}}, "sharedWith": ["*"]}
            assert api.call("POST", f"/manage/v2/endpoint/{tenant}", fields, key=key).status_code == 200
    return "/manage/v2/shared"


LISTS = (tenants, namespaces, users, platform_keys, endpoint_keys, secrets, integrations, models, versions, endpoints, revisions, shared)


@pytest.mark.parametrize("fill", LISTS)
def test_the_pages_of_a_list_are_the_list(api, fill):
    path = fill(api)
    whole = api.call("GET", path).json()
    assert len(whole["items"]) >= 5 and whole["cursor"] is None
    found, cursor = [], None
    for _ in whole["items"]:
        page = api.call("GET", path, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert 0 < len(page["items"]) <= 2
        found, cursor = found + page["items"], page["cursor"]
        if cursor is None:
            break
    assert found == whole["items"]
    assert api.call("GET", path, params={"limit": len(found)}).json() == whole


@pytest.mark.parametrize("fill", LISTS)
def test_a_cursor_or_limit_that_is_none_is_refused_in_words(api, fill):
    path = fill(api)
    for cursor in ("", "no cursor", "\0", "x" * 1000, '"'):
        answer = api.call("GET", path, params={"cursor": cursor})
        assert refused(answer, 400, "invalid_request") == "cursor takes what the page before said." and answer.json()["param"] == "cursor"
    for limit in ("0", "-1", "all", "100001", "9" * 400):
        answer = api.call("GET", path, params={"limit": limit})
        assert "limit" in refused(answer, 400, "invalid_request") and answer.json()["param"] == "limit"


def test_the_cursor_of_one_order_is_none_in_another(api):
    path = platform_keys(api)
    refused(api.call("GET", path, params={"cursor": "admin"}), 400, "invalid_request")
    refused(api.call("GET", versions(api), params={"cursor": "chat"}), 400, "invalid_request")


def test_a_row_that_is_deleted_between_two_pages_leads_nobody_astray(api):
    path = users(api)
    first = api.call("GET", path, params={"limit": 2}).json()
    api.store.delete_user(first["cursor"], 1.0)
    rest = api.call("GET", path, params={"cursor": first["cursor"]}).json()["items"]
    assert [row["name"] for row in (*first["items"], *rest)] == ["a", "a-b", "a.b", "a@b", "a_b", "admin"]


def test_keys_are_searched_by_id_owner_and_description(api):
    path = platform_keys(api)
    told = keys.key_id(people.user(api.store, "ann"))
    assert [row["description"] for row in api.call("GET", path, params={"search": "NUMBER 3"}).json()["items"]] == ["number 3"]
    for text in (told, "ann"):
        assert [row["id"] for row in api.call("GET", path, params={"search": text}).json()["items"]] == [told]


def test_every_list_that_can_grow_has_pages(api):
    """A new list takes `cluster.api.paging.Paged`."""
    without = set()
    for path, methods in api.call("GET", "/manage/openapi.json").json()["paths"].items():
        answer = methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {}).get("application/json", {})
        if "Page" in answer.get("schema", {}).get("$ref", ""):
            asked = {parameter["name"] for parameter in methods["get"].get("parameters", ()) if parameter["in"] == "query"}
            if not {AMONG.get(path.rpartition("/")[2], "cursor")} <= asked:
                without.add(path)
    assert without == BOUNDED


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (tenants, ["tenants", "ls"]),
        (namespaces, ["namespaces", "ls"]),
        (users, ["users", "ls"]),
        (platform_keys, ["platform-keys", "ls"]),
        (endpoint_keys, ["keys", "ls", "demo-chat"]),
        (secrets, ["secrets", "ls"]),
        (integrations, ["integrations", "ls"]),
        (models, ["models", "ls"]),
        (endpoints, ["endpoints", "ls"]),
        (revisions, ["endpoints", "revisions", "demo-chat"]),
    ],
)
def test_commands_show_every_page(api, fill, words, monkeypatch, tmp_path):
    path = fill(api)
    monkeypatch.setattr(client, "PAGE", 2)
    assert runner(api, monkeypatch, tmp_path)(*words, "--json") == api.call("GET", path).json()["items"]
