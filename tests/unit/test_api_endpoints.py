"""Endpoints over the management API: the object, lists, changes, commands and metrics."""

import time

import pytest
from support.api import ECHO, HUB_TIME, names, refused

from cluster import keys, messages, state
from cluster.actor import Actor


def test_a_created_endpoint_is_the_object_that_huggingface_hub_reads(api):
    made = api.create()
    assert made["name"] == "demo-chat"
    assert made["type"] == "authenticated"
    assert made["healthRoute"] == "/health"
    assert {"repository", "framework", "revision", "task", "image"} <= set(made["model"])
    assert made["model"]["revision"] is None and made["model"]["task"] is None
    status = made["status"]
    assert status["state"] == "running"
    assert HUB_TIME.fullmatch(status["createdAt"]) and HUB_TIME.fullmatch(status["updatedAt"])
    assert status["url"] == "http://127.0.0.1:8000/endpoints/admin/demo-chat"
    assert made["generation"] == 1
    assert keys.key_id(made["apiKey"]["key"]) == made["apiKey"]["id"]


def test_the_first_key_and_the_warnings_are_told_at_creation_only(api):
    made = api.create(cacheHttpResponses=True)
    assert "no effect" in made["warnings"][0]
    assert "apiKey" not in api.call("GET", "/demo-chat").json()


def test_a_paused_endpoint_has_no_url(api):
    api.create()
    paused = api.call("POST", "/demo-chat/pause").json()
    assert (paused["status"]["state"], paused["status"]["url"]) == ("paused", None)
    assert api.call("POST", "/demo-chat/resume").json()["status"]["url"]


def test_secrets_are_shown_by_name_only_wherever_an_endpoint_is_shown(api):
    secret = {"model": {**ECHO["model"], "secrets": {"HF_TOKEN": "hunter2"}}}
    answers = [
        api.call("POST", "?dryRun=true", {**ECHO, **secret}),
        api.call("POST", "", {**ECHO, **secret}),
        api.call("PUT", "/demo-chat?dryRun=true", secret),
        api.call("PUT", "/demo-chat", secret),
        *(api.call("GET", path) for path in ("", "/demo-chat", "/demo-chat/revisions", "/demo-chat/events")),
    ]
    assert all(answer.status_code == 200 for answer in answers)
    assert not [answer.text for answer in answers if "hunter2" in answer.text]
    assert api.call("GET", "/demo-chat").json()["model"]["secrets"] == {"HF_TOKEN": ""}


def test_what_is_shown_can_be_sent_back(api):
    made = api.create(model={**ECHO["model"], "secrets": {"HF_TOKEN": "x"}, "env": {"A": "b"}})
    same = {name: made[name] for name in ("compute", "model", "route", "type", "tags", "description", "provider", "strategy")}
    assert api.call("PUT", "/demo-chat", same).json()["generation"] == 1


@pytest.mark.parametrize("word", sorted(state.STATES))
def test_every_state_is_shown_with_reason_phase_and_progress(api, word):
    api.states["demo-chat"] = [state.Status(word, "Downloading", "Half way.", "downloading", 1, 2, 3, progress={"bytes": 1, "total": 2})]
    status = api.create()["status"]
    assert {
        name: status[name] for name in ("state", "reason", "phase", "message", "readyReplica", "targetReplica", "revision", "progress")
    } == {
        "state": word,
        "reason": "Downloading",
        "phase": "downloading",
        "message": "Half way.",
        "readyReplica": 1,
        "targetReplica": 2,
        "revision": 3,
        "progress": {"bytes": 1, "total": 2},
    }


def test_lists_are_searched_filtered_and_paged(api):
    for name, tags in [("alpha", ["a"]), ("beta", ["a", "b"]), ("gamma", [])]:
        api.create(name, tags=tags, description="Third" if name == "gamma" else "")
    api.call("POST", "/beta/pause")
    assert names(api.call("GET", "")) == ["alpha", "beta", "gamma"]
    assert names(api.call("GET", "?search=third")) == ["gamma"]
    assert names(api.call("GET", "?tags=a&tags=b")) == ["beta"]
    assert names(api.call("GET", "?state=paused")) == ["beta"]
    page = api.call("GET", "?limit=2")
    assert names(page) == ["alpha", "beta"]
    page = api.call("GET", f"?limit=2&cursor={page.json()['cursor']}")
    assert names(page) == ["gamma"]
    assert page.json()["cursor"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "state=flying", "limit=" + "9" * 400])
def test_a_wrong_filter_names_itself(api, query):
    answer = api.call("GET", f"?{query}")
    refused(answer, 400, "invalid_request")
    assert answer.json()["param"] == query.partition("=")[0]


def test_a_thousand_endpoints_are_listed_and_one_more_is_made_in_no_time(api):
    for number in range(1000):
        api.control.create(actor(), "admin", {**ECHO, "name": f"row-{number:04}"})
    assert len(api.call("GET", "").json()["items"]) == 1000
    began = time.perf_counter()
    for number in range(10):
        api.create(f"more-{number}")
    assert (time.perf_counter() - began) / 10 < 0.1


def actor():
    return Actor("admin", "admin", frozenset({"admin"}))


def test_the_etag_guards_against_stale_writers(api):
    api.create()
    read = api.call("GET", "/demo-chat")
    assert read.headers["etag"] == '"1"'
    assert api.call("PUT", "/demo-chat", {"description": "a"}, headers={"if-match": '"1"'}).json()["generation"] == 2
    refused(api.call("PUT", "/demo-chat", {"description": "b"}, headers={"if-match": "1"}), 409, "stale_generation")
    refused(api.call("DELETE", "/demo-chat", headers={"if-match": 'W/"1"'}), 409, "stale_generation")
    refused(api.call("DELETE", "/demo-chat", headers={"if-match": "yesterday"}), 400, "invalid_request")
    assert api.call("DELETE", "/demo-chat", headers={"if-match": "*"}).status_code == 200


def test_a_dry_run_tells_the_plan_and_changes_nothing(api):
    plan = api.call("POST", "?dryRun=true", ECHO).json()
    assert (plan["dryRun"], plan["newRevision"], plan["fitsNow"]) == (True, True, True)
    assert names(api.call("GET", "")) == []
    api.create()
    plan = api.call("PUT", "/demo-chat?dryRun=true", {"compute": {"scaling": {"maxReplica": 2}}}).json()
    assert (plan["newRevision"], plan["changes"]) == (False, ["compute.scaling.maxReplica"])
    plan = api.call("PUT", "/demo-chat?dryRun=true", {"compute": {"instanceSize": "x2"}}).json()
    assert (plan["newRevision"], plan["placement"]["bundles"]) == (True, [{"CPU": 2.0}])
    assert api.call("GET", "/demo-chat").json()["generation"] == 1


def test_resuming_what_runs_is_400_with_the_words_that_huggingface_hub_looks_for(api):
    api.create()
    assert "already running" in refused(api.call("POST", "/demo-chat/resume"), 400, "already_running")


def test_a_command_in_the_wrong_state_is_a_conflict(api):
    api.create()
    api.call("POST", "/demo-chat/pause")
    refused(api.call("POST", "/demo-chat/restart"), 409, "conflict")
    refused(api.call("POST", "/demo-chat/scale-to-zero"), 409, "conflict")


def test_a_deleted_endpoint_takes_its_logs_with_it(api):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "old")])
    assert api.call("DELETE", "/demo-chat").status_code == 200
    refused(api.call("GET", "/demo-chat"), 404, "not_found")
    refused(api.call("DELETE", "/demo-chat"), 404, "not_found")
    api.create()
    assert api.call("GET", "/demo-chat/logs").json()["items"] == []
