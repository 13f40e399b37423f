"""The management API over HTTP, in this process: routes, bodies, errors, keys, and that it does what its description says."""

import itertools
import json
import re
import time
import typing

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from support.management import Management

from cluster import keys, log_store, messages, records, state
from cluster.actor import Actor
from cluster.api import bodies, endpoints, schemas

ECHO = {"name": "demo-chat", "model": {"image": {"echo": {}}}}
HERE = "/manage/v2/endpoint/admin"
HUB_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


class Api(Management):
    """Calls with the platform key unless told otherwise."""

    def call(self, method, path, body=None, *, key=None, headers=None, **options):
        token = self.token if key is None else key
        given = ({"authorization": f"Bearer {token}"} if token else {}) | (headers or {})
        url = path if path.startswith("/manage") else HERE + path
        if body is not None:
            options["json"] = body
        return self._http.request(method, url, headers=given, **options)

    def create(self, name="demo-chat", **fields):
        answer = self.call("POST", "", {**ECHO, "name": name, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def app_routes(self):
        """The application's own routes."""
        return [route for route in self.app.routes if isinstance(route, APIRoute)]

    def routes(self):
        """(method, path) of every route that is described, and with values for its parameters."""
        document = self.call("GET", "/manage/openapi.json").json()
        values = {"namespace": "admin", "name": "demo-chat", "number": "1", "key": "x" * 12}
        for path, methods in document["paths"].items():
            for method in methods:
                yield method.upper(), path, "/manage" + path.format(**values)


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


def refused(answer, status, code):
    """The answer's sentence, after checking that it is an error as promised."""
    told = answer.json()
    assert (answer.status_code, told["error_type"]) == (status, code), answer.text
    assert answer.headers["x-error-code"] == code
    assert answer.headers["x-error-message"]
    assert answer.headers["x-request-id"]
    schemas.Error.model_validate(told, extra="forbid")
    return told["error"]


# The Endpoint object


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


# Lists


def names(answer):
    return [item["name"] for item in answer.json()["items"]]


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


# Changing


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


def test_a_deleted_endpoint_takes_its_logs_with_it(api):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "old")])
    assert api.call("DELETE", "/demo-chat").status_code == 200
    refused(api.call("GET", "/demo-chat"), 404, "not_found")
    refused(api.call("DELETE", "/demo-chat"), 404, "not_found")
    api.create()
    assert api.call("GET", "/demo-chat/logs").json()["items"] == []


# Retries


def test_a_retry_with_the_same_idempotency_key_gets_the_same_answer_and_does_nothing(api):
    key = {"idempotency-key": "once"}
    first = api.call("POST", "", ECHO, headers=key)
    again = api.call("POST", "", ECHO, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    refused(api.call("POST", "", {**ECHO, "description": "other"}, headers=key), 409, "idempotency_mismatch")
    refused(api.call("POST", "", ECHO), 409, "already_exists")
    refused(api.call("POST", "", ECHO, headers={"idempotency-key": "x" * 256}), 400, "invalid_request")


@pytest.mark.parametrize("path", ["/demo-chat/keys", "/manage/v2/keys"])
def test_a_retried_key_is_made_once_and_its_text_is_not_readable_in_the_store(api, path):
    api.create()
    made = [api.call("POST", path, {"description": "x"}, headers={"idempotency-key": "once"}).json() for _ in range(2)]
    assert made[0] == made[1]
    assert [item["description"] for item in api.call("GET", path).json()["items"]].count("x") == 1
    assert made[0]["key"] not in repr(vars(api.store))


def test_a_refused_creation_is_not_remembered(api):
    key = {"idempotency-key": "once"}
    refused(api.call("POST", "", {**ECHO, "name": "X"}, headers=key), 400, "invalid_request")
    assert api.call("POST", "", ECHO, headers=key).status_code == 200


# Keys


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


# Who may


def test_every_route_without_a_key_is_401_but_health_and_the_description(api):
    routes = list(api.routes())
    assert len(routes) > 25
    for method, path, url in routes:
        answer = api.call(method, url, {} if method in ("POST", "PUT", "PATCH") else None, key="")
        if path == "/health":
            assert answer.status_code == 200
        else:
            refused(answer, 401, "invalid_api_key")


def test_every_route_is_described(api):
    described = {(method, path) for method, path, _ in api.routes()}
    real = {(method, route.path) for route in api.app_routes() for method in route.methods}
    assert real == described


def test_every_route_of_an_endpoint_answers_an_endpoint_key_with_403_and_a_foreign_namespace_with_404(api):
    key = api.create()["apiKey"]["key"]
    made = keys.mint(keys.PLATFORM)
    api.store.add_namespace("team")
    api.store.add_key(records.Key(made.id, made.digest, keys.PLATFORM, "team", owner="tom"))
    for method, path, url in api.routes():
        body = {} if method in ("POST", "PUT", "PATCH") else None
        if path != "/health":
            refused(api.call(method, url, body, key=key), 403, "forbidden")
        if "{namespace}" in path:
            refused(api.call(method, url, body, key=made.key), 404, "not_found")
    assert names(api.call("GET", "")) == ["demo-chat"]


MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Basic YWRtaW46YWRtaW4=",
    "Bearer ' OR '1'='1",
    "Bearer " + "x" * 60_000,
    "bearer\tx",
    "Bearer moor_p_é",
]


@pytest.mark.parametrize("header", [*MALFORMED, "Bearer moor_p_" + "A" * 12 + "_" + "B" * 38, "Bearer null"])
def test_a_malformed_key_is_401_without_a_look_at_the_store(api, header):
    def fail(*_):
        raise AssertionError("the store was asked")

    api.store.key_by_digest = fail
    answer = api.call("GET", "", key="", headers={"authorization": header.encode("latin-1")})
    refused(answer, 401, "invalid_api_key")


def test_two_authorization_headers_are_no_key(api):
    pair = [("authorization", f"Bearer {api.token}"), ("authorization", "Bearer x")]
    refused(api._http.get(HERE, headers=pair), 401, "invalid_api_key")


def test_a_key_in_x_api_key_serves_too(api):
    assert api.call("GET", "", key="", headers={"x-api-key": api.token}).status_code == 200


def test_a_host_header_changes_nothing(api):
    for host in ("localhost/?x=1", "x/#", "a@b", "[::1", "localhost:4000/manage/health#"):
        refused(api.call("GET", "", key="", headers={"host": host}), 401, "invalid_api_key")


# Bodies

ODD = [
    b'{"name": ',
    b"",
    b"   ",
    b"null",
    b"[]",
    b'"text"',
    b"7",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"name": "\xed\xa0\x80"}',
    b'{"name": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"description": "a\\u0000b"}',
    b'{"name": NaN}',
    b'{"name": Infinity}',
    b'{"compute": {"scaling": {"targetConcurrency": 1e999}}}',
    b'{"compute": {"scaling": {"targetConcurrency": 1' + b"0" * 400 + b"}}}",
    b'{"name": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"model": {"image": {"tgi": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}}}",
    b'{"name": "one-name", "name": "two-name"}',
    b"{" + b",".join(b'"k%d":1' % number for number in range(60_000)) + b"}",
]


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize(
    ("method", "path"), [("POST", ""), ("PUT", "/demo-chat"), ("POST", "/demo-chat/keys"), ("POST", "/demo-chat/rollback")]
)
def test_an_odd_body_is_400_and_never_a_server_error(api, content, method, path):
    api.create()
    answer = api.call(method, path, content=content, headers={"content-type": "application/json"})
    if not content.strip() and path.startswith("/demo-chat/"):
        assert answer.status_code in (200, 409)  # these need no body
    else:
        refused(answer, 400, "invalid_request")
    assert names(api.call("GET", "")) == ["demo-chat"]


def test_a_body_over_the_limit_is_413_with_a_length_and_without(api):
    for content in (b" " * (bodies.LIMIT + 1), (b" " * 100_000 for _ in range(20))):
        refused(api.call("POST", "", content=content, headers={"content-type": "application/json"}), 413, "too_large")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
def test_another_content_type_is_told_which_one_is_right(api, kind):
    answer = api.call("POST", "", content=json.dumps(ECHO), headers={"content-type": kind})
    assert "application/json" in refused(answer, 400, "invalid_request")


def test_json_without_or_with_a_longer_content_type_is_read(api):
    content = json.dumps(ECHO).encode()
    assert api.call("POST", "", content=content).status_code == 200
    headers = {"content-type": "application/json; charset=utf-8"}
    assert api.call("PUT", "/demo-chat", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**ECHO, "name": "X"}, "name"),
        ({**ECHO, "colour": "blue"}, "colour"),
        ({**ECHO, "compute": {"scaling": {"minReplica": "many"}}}, "compute.scaling.minReplica"),
        ({**ECHO, "compute": {"scaling": {"minReplica": 5, "maxReplica": 1}}}, "compute.scaling"),
        ({**ECHO, "compute": {"instanceType": "nvidia-h9000"}}, "compute.instanceType"),
        ({**ECHO, "model": {"image": {"llamacpp": {}}}}, "model.image"),
        ({**ECHO, "model": {"image": {"echo": {}}, "env": {"LD_PRELOAD": "x"}}}, "model.env"),
        ({**ECHO, "model": {"repository": "a/b", "image": {"vLLM": {}}, "args": ["--nonsense", "1"]}}, "model.args"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(api, body, param):
    answer = api.call("POST", "", body)
    refused(answer, 400, "invalid_request")
    assert answer.json()["param"].startswith(param)


# Looking on


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


def test_logs_are_read_and_filtered(api):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello"), messages.LogLine(2.0, "error", "oh")])
    api.logs.append("admin", "demo-chat", "r2", [messages.LogLine(3.0, "warning", "hm")])

    def asked(query=""):
        return [item["text"] for item in api.call("GET", f"/demo-chat/logs?{query}").json()["items"]]

    assert asked() == ["hello", "oh", "hm"]
    assert asked("level=warning") == ["oh", "hm"]
    assert asked("replica=r1&tail=1") == ["oh"]
    assert asked("replica=../r1") == []
    assert asked("since=3") == ["hm"]


def test_followed_logs_are_a_json_object_per_line_until_the_endpoint_goes(api, monkeypatch):
    api.create()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello")])

    async def follow(*_, **__):
        yield log_store.LogEntry(1.0, "info", "r1", "hello")
        yield None
        yield log_store.LogEntry(2.0, "info", "r1", "again")

    monkeypatch.setattr(api.logs, "follow", follow)
    answer = api.call("GET", "/demo-chat/logs?follow=true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.text.split("\n")
    assert [json.loads(line)["text"] for line in lines if line] == ["hello", "again"]
    assert lines[1] == ""


def test_metrics_sum_the_replicas_loads(api):
    api.create()
    api.control.loads = lambda endpoint: [1.0, 2.5]
    assert api.call("GET", "/demo-chat/metrics").json() == {
        "running": 3.5,
        "replicas": [{"running": 1.0}, {"running": 2.5}],
        "ready": 1,
        "target": 1,
    }


# The platform


def test_whoami_namespaces_hardware_and_the_catalogue_answer_as_huggingface_hub_asks(api):
    api.store.add_namespace("team")
    who = api.call("GET", "/manage/api/whoami-v2").json()
    assert (who["type"], who["name"], who["orgs"]) == ("user", "admin", [{"type": "org", "name": "team"}])
    assert [item["name"] for item in api.call("GET", "/manage/v2/namespaces").json()["items"]] == ["admin", "team"]
    computes = api.call("GET", "/manage/v2/provider/team").json()["vendors"][0]["regions"][0]["computes"]
    assert {"local-cpu-x1", "nvidia-h200-x2"} <= {row["id"] for row in computes}
    refused(api.call("GET", "/manage/v2/provider/elsewhere"), 404, "not_found")
    assert api.call("GET", "/manage/api/v1/catalog/list").json() == {"items": []}


def test_unknown_routes_and_methods_are_told_in_the_same_shape(api):
    refused(api.call("GET", "/manage/nothing"), 404, "not_found")
    refused(api.call("GET", "/manage/v2/namespaces/"), 404, "not_found")
    answer = api.call("DELETE", "")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


def test_an_answer_carries_the_edges_request_id_or_a_new_one(api):
    assert api.call("GET", "", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    ids = [api.call("GET", "").headers["x-request-id"] for _ in range(2)]
    assert len(set(ids)) == 2
    for odd in ("x" * 200, "", "a\tb"):
        assert api.call("GET", "", headers={"x-request-id": odd}).headers["x-request-id"] != odd


def test_what_an_error_repeats_of_an_input_cannot_break_its_headers(api):
    answer = api.call("POST", "", {**ECHO, "a\x01\r\nX-Evil: 1\x85é😀": 1})
    refused(answer, 400, "invalid_request")
    assert "x-evil" not in answer.headers
    assert answer.headers["x-error-message"].isascii() and answer.headers["x-error-message"].isprintable()


def test_a_bug_is_a_500_without_internals_and_with_an_id(api, caplog):
    def explode(*_):
        raise RuntimeError("password=hunter2 in /srv/secret")

    api.store.endpoints = explode
    answer = api.call("GET", "")
    refused(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text


def test_health_is_503_until_the_cluster_has_been_seen(api):
    api.ready = False
    answer = api.call("GET", "/manage/health", key="")
    assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
    api.ready = True
    answer = api.call("GET", "/manage/health", key="")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


# The description


def test_every_command_has_a_route(api):
    posted = {path.rsplit("/", 1)[-1] for method, path, _ in api.routes() if method == "POST"}
    one = {method for method, path, _ in api.routes() if path == "/v2/endpoint/{namespace}/{name}"}
    assert set(state.ALLOWED) - {"update", "delete"} <= posted
    assert one == {"GET", "PUT", "DELETE"}


def test_the_page_lists_every_route_and_loads_nothing_from_elsewhere(api):
    page = api.call("GET", "/manage/docs", key="").text
    for _, path, _ in api.routes():
        assert path in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_every_reference_in_the_description_leads_somewhere(api):
    document = api.call("GET", "/manage/openapi.json", key="").json()
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found - set(document["components"]["schemas"]) == set()
    assert "EndpointChange" in found


def test_answers_are_as_described(api):
    """Every answer of every GET, and of the calls that make something, fits the schema of its route to the last field."""
    api.create()
    api.call("POST", "/demo-chat/keys")
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(1.0, "info", "hello")])
    first = api.call("GET", "/demo-chat/keys").json()["items"][0]["id"]
    api.store.add_namespace("team")
    checked = set()
    for route in api.app_routes():
        if "GET" not in route.methods:
            continue
        url = "/manage" + route.path.format(namespace="admin", name="demo-chat", number=1, key=first)
        TypeAdapter(route.response_model).validate_python(api.call("GET", url).json())
        checked.add(route.path)
    assert len(checked) > 12
    made = [
        (schemas.NewEndpoint, api.call("POST", "", {**ECHO, "name": "another"})),
        (schemas.Plan, api.call("POST", "?dryRun=true", {**ECHO, "name": "third"})),
        (schemas.Endpoint, api.call("PUT", "/demo-chat", {"description": "x"})),
        (schemas.NewKey, api.call("POST", "/demo-chat/keys")),
        (schemas.Endpoint, api.call("POST", "/demo-chat/pause")),
        (schemas.Nothing, api.call("DELETE", "/demo-chat")),
    ]
    for model, answer in made:
        model.model_validate(answer.json())


def test_the_states_of_the_description_are_the_states_there_are():
    assert set(typing.get_args(endpoints.State)) == set(typing.get_args(schemas.Status.model_fields["state"].annotation)) == state.STATES


def test_ids_of_operations_are_unique(api):
    document = api.call("GET", "/manage/openapi.json").json()
    ids = list(itertools.chain(*([operation["operationId"] for operation in methods.values()] for methods in document["paths"].values())))
    assert len(ids) == len(set(ids))
