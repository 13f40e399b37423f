"""A name that is used again: who has it now sees nothing of who had it before, and an operator still tells them apart."""

import time

import pytest
from support import people
from support.access_lines import line
from support.api import ECHO, refused

from cluster import declared, keys, messages, records, roles, windows
from cluster.actor import Actor
from cluster.usage_records import CapacityDay, UsageRow

TODAY = windows.day(time.time())
REQUESTS, USAGE, AUDIT = "/manage/v2/requests", "/manage/v2/usage", "/manage/v2/audit"


def use(api, identity, revision, namespace="lab", tenant="acme", cost=1.0):
    now = time.time()
    api.store.add_usage(
        [UsageRow(identity, namespace, "demo-chat", revision, "r", tenant=tenant, cost=cost, ended_at=now, stored_at=now, prompt_tokens=5)]
    )
    until = api.store.accounted_until()
    day = CapacityDay(TODAY, namespace, "demo-chat", revision, "local-cpu", "x1", ready_s=10.0, hourly_cost=cost)
    assert api.store.add_capacity([day], until, until + 1)


@pytest.fixture
def log(api):
    """Writes lines of the access log: requests that ended some seconds from now."""
    written = []

    def write(identity, after=0.0, endpoint="lab/demo-chat", **changes):
        data = line(identity, time.time() + after, endpoint=endpoint, **{"ms": {"active": 100}, **changes})
        api.history.lines(messages.RequestLines("edge", "s1", sum(map(len, written)), data))
        written.append(data)

    return write


def create(api, key, namespace="lab", **fields):
    answer = api.call("POST", f"/manage/v2/endpoint/{namespace}", {**ECHO, **fields}, key=key)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def total(api, path, key=None):
    answer = api.call("GET", path, key=key)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return told["total"]["cost"], told["capacity"]["total"]["cost"] if told["capacity"] else None


def emptied(api, key):
    """The namespace `lab` is deleted with what is in it."""
    assert api.call("DELETE", "/manage/v2/endpoint/lab/demo-chat", key=key).status_code == 200
    assert api.call("DELETE", "/manage/v2/namespaces/lab", key=key).status_code == 200


def test_a_namespace_that_is_made_again_shows_nothing_of_the_old_one_and_an_operator_counts_both(api, log):
    ann, eve = people.user(api.store, "ann", tenant="acme"), people.user(api.store, "eve", tenant="rival")
    assert api.call("POST", "/manage/v2/namespaces", {"name": "lab"}, key=ann).status_code == 200
    create(api, ann)
    use(api, "old", 1, cost=4.0)
    log("old")
    emptied(api, ann)
    assert api.call("POST", "/manage/v2/namespaces", {"name": "lab"}, key=eve).status_code == 200
    create(api, eve)
    use(api, "new", 2, tenant="rival")
    log("long", after=30.0, ms={"active": 60_000})  # began at the old one, and ended while there was a new one
    log("new", after=31.0)
    use(api, "late", 1, cost=2.0)  # told of by a replica that was still draining
    assert ids(api.call("GET", REQUESTS, key=eve)) == ["new"]
    assert ids(api.call("GET", "/manage/v2/endpoint/lab/demo-chat/requests", key=eve)) == ["new"]
    for identity in ("old", "long"):
        refused(api.call("GET", f"{REQUESTS}/{identity}", key=eve), 404, "not_found")
        refused(api.call("GET", f"/manage/v2/endpoint/lab/demo-chat/requests/{identity}", key=eve), 404, "not_found")
    assert total(api, USAGE, eve) == total(api, f"{USAGE}?namespace=lab", eve) == (1.0, 1.0)
    assert total(api, "/manage/v2/endpoint/lab/demo-chat/usage", eve) == (1.0, 1.0)
    assert [row["resource"] for row in api.call("GET", f"{AUDIT}?resource=lab", key=eve).json()["items"]] == ["lab/demo-chat", "lab"]
    told = api.call("GET", f"{USAGE}?by=namespace").json()
    costs = {row["namespace"]: row["cost"] for row in told["items"]}
    assert sorted(costs.values()) == [1.0, 6.0] and costs["lab"] == 1.0
    (old,) = costs.keys() - {"lab"}
    assert old.startswith("lab (until ")
    assert total(api, f"{USAGE}?namespace={old}") == (6.0, 6.0)
    assert set(ids(api.call("GET", REQUESTS))) == {"old", "long", "new"}
    assert total(api, USAGE, ann)[0] == 6.0  # its own tenant's keys


def test_a_tenant_that_is_made_again_shows_nothing_of_the_old_one(api, log):
    ann = people.user(api.store, "ann", tenant="acme")
    api.call("POST", "/manage/v2/namespaces", {"name": "lab"}, key=ann)
    api.call("DELETE", "/manage/v2/namespaces/lab", key=ann)
    use(api, "old", 1, namespace="admin")
    log("old", endpoint="admin/demo-chat", tenant="acme")
    assert ids(api.call("GET", REQUESTS, key=ann)) == ["old"]
    for path in ("users/ann", "namespaces/acme", "tenants/acme"):
        assert api.call("DELETE", f"/manage/v2/{path}").status_code == 200
    time.sleep(0.01)
    for path, body in (("tenants", {"name": "acme"}), ("namespaces", {"name": "acme", "tenant": "acme"})):
        assert api.call("POST", f"/manage/v2/{path}", body).status_code == 200
    eve = people.user(api.store, "eve", tenant="acme")
    assert ids(api.call("GET", REQUESTS, key=eve)) == []
    assert api.call("GET", AUDIT, key=eve).json()["items"] == []
    assert api.call("GET", f"{AUDIT}?format=ndjson", key=eve).text == ""
    assert total(api, USAGE, eve)[0] == 0
    tenants = [row["tenant"] for row in api.call("GET", f"{USAGE}?by=tenant").json()["items"]]
    assert len(tenants) == 1 and tenants[0].startswith("acme (until ")


def test_a_user_that_is_made_again_owns_nothing_of_the_old_one(api):
    ann, boss = people.user(api.store, "ann", roles.MEMBER, "acme"), people.user(api.store, "boss", tenant="acme")
    create(api, ann, "acme")
    old = api.call("POST", "/manage/v2/keys", {"description": "hers"}, key=ann).json()
    owned = "/manage/v2/endpoint/acme/demo-chat/keys"
    assert api.call("GET", owned, key=ann).status_code == 200
    assert api.call("DELETE", "/manage/v2/users/ann", key=boss).status_code == 200
    new = people.user(api.store, "ann", roles.MEMBER, "acme")
    assert "ann (deleted)" in refused(api.call("GET", owned, key=new), 403, "forbidden")
    refused(api.call("DELETE", "/manage/v2/endpoint/acme/demo-chat", key=new), 403, "forbidden")
    assert ids(api.call("GET", "/manage/v2/keys", key=new)) == [keys.key_id(new)]
    refused(api.call("GET", f"/manage/v2/keys/{old['id']}", key=new), 404, "not_found")
    assert api.call("GET", "/manage/v2/endpoint/acme/demo-chat", key=boss).json()["status"]["createdBy"]["name"] == "ann (deleted)"
    assert api.call("GET", f"/manage/v2/keys/{old['id']}").json()["status"] == "revoked"
    assert old["id"] in ids(api.call("GET", "/manage/v2/keys?user=ann (deleted)"))
    assert api.call("DELETE", "/manage/v2/endpoint/acme/demo-chat", key=boss).status_code == 200


def test_an_endpoint_that_is_made_again_shows_nothing_of_the_old_one(api, log):
    for name in ("admin", "lab"):
        api.store.add_namespace(name)
    create(api, api.token, requestLog={"prompts": True})
    use(api, "old", 1, cost=4.0)
    log("old")
    log("long", after=30.0, ms={"active": 60_000})
    before = api.store.endpoint("lab", "demo-chat")
    told = messages.Prompt("old", time.time(), "/v1/completions", "{}", "hush", False)
    api.call("DELETE", "/manage/v2/endpoint/lab/demo-chat")
    api.history.keep_prompts(before, [told])  # it was on its way when the endpoint was deleted
    time.sleep(0.01)
    made = create(api, api.token, requestLog={"prompts": True})
    assert made["status"]["targetRevision"] == 2
    here = "/manage/v2/endpoint/lab/demo-chat"
    assert total(api, f"{here}/usage") == (0, 0)
    assert ids(api.call("GET", f"{here}/requests")) == []
    refused(api.call("GET", f"{here}/requests/old/prompt"), 404, "not_found")
    assert [row["kind"] for row in api.call("GET", f"{here}/events").json()["items"]] == ["create"]
    use(api, "new", 2)
    assert total(api, f"{here}/usage") == (1.0, 1.0)
    assert total(api, f"{USAGE}?endpoint=lab/demo-chat") == (5.0, 5.0)
    by = api.call("GET", f"{USAGE}?endpoint=lab/demo-chat&by=revision").json()["items"]
    assert [(row["revision"], row["cost"]) for row in by] == [(1, 4.0), (2, 1.0)]


def test_an_application_that_still_drains_is_not_a_later_endpoints(api):
    create(api, api.token, "admin")
    assert declared.endpoint_of(api.store, "admin--demo-chat--r1").target == 1
    assert declared.endpoint_of(api.store, "admin--demo-chat--r9") is not None
    api.call("DELETE", "/demo-chat")
    assert declared.endpoint_of(api.store, "admin--demo-chat--r1") is None
    create(api, api.token, "admin")
    assert declared.endpoint_of(api.store, "admin--demo-chat--r1") is None
    assert declared.endpoint_of(api.store, "admin--demo-chat--r2").first_revision == 2
    assert declared.endpoint_of(api.store, "elsewhere") is None
    # An author may call an application as he likes, whichever revision that looks like.
    theirs = {"name": "their-own", "application": "admin--their-own--r1"}
    for identity in ("d1", "d2"):
        api.store.create_endpoint(records.Endpoint(identity, "admin", "their-own", theirs, 1, source="declarative"), {}, None, {})
        assert declared.endpoint_of(api.store, "admin--their-own--r1").id == identity
        api.store.delete_endpoint(identity)


def test_who_had_a_name_cannot_be_taken_for_somebody(api):
    """The words for those who are gone are no names that anybody could be given."""
    for path, body in (
        ("users", {"name": "ann (deleted)"}),
        ("namespaces", {"name": "lab (until 2026-01-01T00:00:00Z)"}),
        ("tenants", {"name": "acme (until 2026-01-01T00:00:00Z)"}),
    ):
        refused(api.call("POST", f"/manage/v2/{path}", body), 400, "invalid_request")
    row = records.Endpoint("e", "n", "x", {}, 1, created_by="ann (deleted)")
    assert not Actor("ann", "n", frozenset(), role=roles.MEMBER).decides(row.created_by)
