"""Usage, cost and limits over the management API: who sees what, sums, CSV."""

import csv
import dataclasses
import io
import time

import pytest
from support import people
from support.api import refused

from cluster import actor, keys, records, roles, usage_report, windows
from cluster.api import usage, usage_schemas
from cluster.usage_records import Asked, CapacityDay, Scope, UsageRow

NOW = time.time()
TODAY = windows.day(NOW)


def row(identity, endpoint="demo-chat", **fields):
    usual = {"namespace": "admin", "revision": 1, "replica": "r", "prompt_tokens": 10, "completion_tokens": 5, "share_s": 2.0, "cost": 0.5}
    return UsageRow(identity, endpoint=endpoint, **{**usual, "ended_at": NOW, "stored_at": NOW, **fields})


def held(endpoint="demo-chat", namespace="admin", **fields):
    return CapacityDay(TODAY, namespace, endpoint, 1, "local-cpu", "x1", **fields)


@pytest.fixture
def used(api):
    """An endpoint that was used with two keys, and one of another namespace."""
    made = api.create(limits={"tokensPerDay": 100, "requestsPerMinute": 7, "budget": 2, "budgetPeriod": "total"})
    key = next(row for row in api.store.keys(endpoint_id=made["id"]))
    api.store.update_key(key.id, {"tokens_per_minute": 20})
    api.store.add_usage(
        [
            row("a", key=key.id, served="org/model", cached_tokens=3),
            row("b", key="gone", served="org/model", outcome="failed", adapter="style"),
            row("c", key="gone", outcome="aborted", ended_at=NOW - 86_400, stored_at=NOW - 86_400),
            row("d", namespace="other", key=key.id),
        ]
    )
    api.store.add_capacity(
        [held(ready_s=60.0, starting_s=40.0, accelerator_s=200.0, hourly_cost=3.0, committed_cost=1.0, zeros=2, zero_wait_s=30.0)], 0.0, 1.0
    )
    return key


def test_an_endpoints_use_is_summed_up_with_its_hardware_and_what_that_cost(api, used):
    told = api.call("GET", "/demo-chat/usage").json()
    assert usage_schemas.Usage.model_validate(told)
    assert (told["currency"], told["until"], told["cursor"]) == ("USD", TODAY, None)
    assert told["items"] == [told["total"]]
    total = told["total"]
    assert (total["requests"], total["finished"], total["failed"], total["aborted"]) == (3, 1, 1, 1)
    assert (total["promptTokens"], total["completionTokens"], total["cachedTokens"], total["cost"]) == (30, 15, 3, 1.5)
    capacity = told["capacity"]["total"]
    assert (capacity["busySeconds"], capacity["idleSeconds"], capacity["startingSeconds"]) == (6.0, 54.0, 40.0)
    assert (capacity["idleShare"], capacity["startingShare"], capacity["cost"]) == (0.54, 0.4, 4.0)
    assert (capacity["scaledToZero"], capacity["idleBeforeZeroSeconds"]) == (2, 30.0)


def test_sums_are_told_apart_as_asked_and_keys_have_their_descriptions(api, used):
    items = api.call("GET", "/demo-chat/usage?by=day,key").json()["items"]
    assert [(item["day"], item["key"], item["keyDescription"], item["requests"]) for item in items] == sorted(
        [(TODAY, used.id, "First Key", 1), (TODAY, "gone", None, 1), (windows.day(NOW - 86_400), "gone", None, 1)], key=lambda one: one[:2]
    )
    by_model = api.call("GET", "/demo-chat/usage?by=model,adapter").json()
    assert [(one["model"], one["adapter"]) for one in by_model["items"]] == [("", ""), ("org/model", ""), ("org/model", "style")]
    assert len(by_model["capacity"]["items"]) == 1
    only = api.call("GET", f"/demo-chat/usage?key={used.id}").json()
    assert only["total"]["requests"] == 1 and only["capacity"] is None
    assert api.call("GET", f"/demo-chat/usage?since={TODAY}&until={TODAY}").json()["total"]["requests"] == 2
    assert [one["revision"] for one in api.call("GET", "/demo-chat/usage?by=revision").json()["items"]] == [1]


def test_groups_come_in_pages(api, used):
    api.store.add_usage([row(f"k{number}", key=f"k{number}") for number in range(5)])
    found, cursor = [], ""
    while cursor is not None:
        page = api.call("GET", f"/demo-chat/usage?by=key&limit=3{f'&cursor={cursor}' if cursor else ''}").json()
        found += [item["key"] for item in page["items"]]
        cursor = page["cursor"]
    assert found == sorted(["gone", used.id, *(f"k{number}" for number in range(5))])


def test_the_whole_platforms_use_is_the_operators_to_see_and_filtered_by_name(api, used):
    def requests(query):
        return api.call("GET", f"/manage/v2/usage?{query}").json()["total"]["requests"]

    assert (requests(""), requests("namespace=other"), requests("endpoint=other/demo-chat"), requests("endpoint=demo-chat")) == (4, 1, 1, 3)
    listed = api.call("GET", "/manage/v2/usage?by=endpoint").json()["items"]
    assert [(one["namespace"], one["endpoint"], one["requests"]) for one in listed] == [
        ("admin", "demo-chat", 3),
        ("other", "demo-chat", 1),
    ]


def test_others_see_their_own_namespaces_alone(api, used):
    theirs = people.user(api.store, "ann", tenant="acme")
    api.store.add_usage([row("mine", namespace="acme", key=used.id)])
    told = api.call("GET", "/manage/v2/usage?by=endpoint,key", key=theirs).json()
    assert [(one["namespace"], one["keyDescription"]) for one in told["items"]] == [("acme", None)]
    assert told["capacity"]["total"]["replicaSeconds"] == 0
    assert api.call("GET", "/manage/v2/usage?namespace=admin", key=theirs).json()["total"]["requests"] == 0
    refused(api.call("GET", "/demo-chat/usage", key=theirs), 404, "not_found")


@pytest.mark.parametrize(
    ("role", "operator", "scope"),
    [
        (roles.VIEWER, False, Scope(frozenset({"a"}))),
        (roles.MEMBER, False, Scope(frozenset({"a"}))),
        (roles.ADMIN, False, Scope(frozenset({"a"}), "t")),
        (roles.OPERATOR, True, None),
    ],
)
def test_an_admin_sees_what_its_tenants_keys_used_elsewhere_too(role, operator, scope):
    assert usage_report.scope_of(actor.Actor("ann", "a", frozenset({"a"}), operator=operator, tenant="t", role=role)) == scope


def test_a_csv_has_every_group_and_numbers_that_are_numbers(api, used, monkeypatch):
    monkeypatch.setattr(usage_report, "AT_ONCE", 2)
    api.store.add_usage([row(f"k{number}", key=f"k{number}") for number in range(5)])
    answer = api.call("GET", "/demo-chat/usage?by=key&format=csv")
    assert answer.headers["content-type"].startswith("text/csv") and "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["key"] for row in rows] == sorted(["gone", used.id, *(f"k{number}" for number in range(5))])
    assert sum(float(row["cost"]) for row in rows) == 4.0
    (hardware,) = csv.DictReader(io.StringIO(api.call("GET", "/demo-chat/usage?format=csv&part=capacity").text))
    assert (hardware["busySeconds"], hardware["idleShare"]) == ("16.0", "0.44")
    for part in ("requests", "capacity"):
        nothing = api.call("GET", f"/manage/v2/usage?endpoint=none&by=day,key,revision&format=csv&part={part}").text
        assert nothing.startswith("day,") and len(nothing.splitlines()) <= 2


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1"])
def test_no_cell_of_a_csv_is_a_formula(api, used, text):
    assert usage.cell(text) == f"'{text}"
    api.store.add_usage([row("x", served=text)])
    cells = [
        line["model"] for line in csv.DictReader(io.StringIO(api.call("GET", "/demo-chat/usage?by=model&format=csv").text, newline=""))
    ]
    assert f"'{text}" in cells and text not in cells
    assert usage.cell("org/model") == "org/model" and usage.cell(-1.5) == -1.5


def test_limits_tell_what_is_used_what_is_left_and_when_they_begin_anew(api, used):
    told = api.call("GET", "/demo-chat/limits").json()
    assert usage_schemas.Limited.model_validate(told)
    own = {one["limit"]: one for one in told["limits"]}
    assert (own["tokensPerDay"]["used"], own["tokensPerDay"]["left"], own["tokensPerDay"]["exceeded"]) == (30.0, 70.0, False)
    assert own["tokensPerDay"]["resets"].endswith("T00:00:00.000Z")
    assert (own["budget"]["used"], own["budget"]["resets"]) == (1.5, None)
    assert own["requestsPerMinute"] == {
        "limit": "requestsPerMinute",
        "most": 7,
        "used": None,
        "left": None,
        "exceeded": False,
        "resets": None,
    }
    ((key),) = told["keys"]
    assert (key["id"], key["description"], [one["limit"] for one in key["limits"]]) == (used.id, "First Key", ["tokensPerMinute"])
    api.store.add_usage([row("more", prompt_tokens=100)])
    assert {one["limit"]: one["exceeded"] for one in api.call("GET", "/demo-chat/limits").json()["limits"]}["tokensPerDay"]


def test_the_limits_of_ones_platform_keys(api, used):
    minted = keys.mint(keys.PLATFORM)
    api.store.add_key(records.Key(minted.id, minted.digest, keys.PLATFORM, "admin", owner="bob", budget=2.0, budget_period="total"))
    api.store.add_usage([row("p", key=minted.id)])
    ((key),) = api.call("GET", "/manage/v2/limits").json()["keys"]
    assert (key["id"], key["limits"][0]["used"], key["limits"][0]["left"]) == (minted.id, 0.5, 1.5)
    viewer = actor.Actor("ann", "admin", frozenset({"admin"}), role=roles.VIEWER)
    assert usage_report.Reports(api.store).limits_of_platform_keys(viewer, NOW) == []
    own = dataclasses.replace(viewer, name="bob")
    assert [one.id for one, _ in usage_report.Reports(api.store).limits_of_platform_keys(own, NOW)] == [minted.id]


def test_a_bad_question_is_refused_in_words(api, used):
    for query in (
        *("since=soon", "until=2026-13-01", "since=2026-02-02&until=2026-02-01", "since=99999999999999", "by=colour", "by=day;drop"),
        *("limit=0", "limit=99999", "cursor=-1", "cursor=x", "format=xml", "part=all", "since=9999999999999.5"),
    ):
        refused(api.call("GET", f"/demo-chat/usage?{query}"), 400, "invalid_request")
    assert "day, namespace" in refused(api.call("GET", "/demo-chat/usage?by=colour"), 400, "invalid_request")
    refused(api.call("GET", "/none-such/usage"), 404, "not_found")
    refused(api.call("GET", "/none-such/limits"), 404, "not_found")
    refused(api.call("GET", "/manage/v2/usage", key="moor_e_wrong"), 401, "invalid_api_key")


def test_busy_time_is_never_more_than_what_was_ready(api):
    api.create()
    api.store.add_usage([row("a", share_s=500.0)])
    api.store.add_capacity([held(ready_s=100.0)], 0.0, 1.0)
    found = usage_report.Reports(api.store).capacity(Asked(TODAY, TODAY))
    assert [(one.busy_s, one.idle_s, one.share(one.idle_s)) for one in found] == [(100.0, 0.0, 0.0)]
