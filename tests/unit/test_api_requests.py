"""The request log over the management API: pages, filters, one request whole, prompts, and who may see what."""

import json
import time

import pytest
from support import people
from support.access_lines import line
from support.api import refused

from cluster import messages, roles

ALL = "/manage/v2/requests"


@pytest.fixture
def told(api):
    """Writes lines into the log, as a gateway's; they ended so many seconds from now, and began after the endpoint was made."""
    made = api.create()
    written = []

    def write(identity, after=5.0, endpoint="admin/demo-chat", **changes):
        data = line(identity, time.time() + after, endpoint=endpoint, **changes)
        api.history.lines(messages.RequestLines("edge", "s1", sum(map(len, written)), data))
        written.append(data)

    write.endpoint = made
    return write


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_an_endpoints_requests_are_listed_newest_first_and_no_others(api, told):
    for identity in ("one", "two"):
        told(identity)
    told("another", endpoint="admin/another")
    told("before-it-was-made", after=-3600.0)
    assert ids(api.call("GET", "/demo-chat/requests")) == ["two", "one"]


def test_a_request_says_where_it_went_and_how_it_ended(api, told):
    api.history.seen(messages.ReplicaIdentity("admin--demo-chat--r4", "r1", member="big"), api.store.endpoint("admin", "demo-chat"), 4)
    api.history.tokens.known["one"] = messages.Usage("one", model="m", prompt_tokens=10, completion_tokens=5, cached_tokens=8, queue_s=0.5)
    told("one", end="CD", ms={"queue": 20, "response": 30, "active": 1500}, tries=1)
    [found] = api.call("GET", "/demo-chat/requests").json()["items"]
    assert (found["replica"], found["revision"], found["endpoint"], found["key"]) == ("big:r1", 4, "admin/demo-chat", "k1")
    assert (found["outcome"], found["ended"]) == ("client_left", "The client left before the answer was whole.")
    assert (found["queueSeconds"], found["firstByteSeconds"], found["totalSeconds"], found["tries"]) == (0.02, 0.05, 1.5, 1)
    assert found["tokens"] == {"prompt": 10, "completion": 5, "cached": 8}
    assert (found["engine"]["queueSeconds"], found["engine"]["outcome"]) == (0.5, "finished")


def test_without_a_record_of_the_engine_its_fields_are_null(api, told):
    told("one", status=429, code="rate_limit_exceeded", end="LR", server="-", to="<NOSRV>")
    [found] = api.call("GET", "/demo-chat/requests").json()["items"]
    assert (found["tokens"], found["engine"], found["replica"], found["revision"]) == (None, None, None, None)
    assert (found["status"], found["code"], found["outcome"]) == (429, "rate_limit_exceeded", "refused")


def test_filters_and_pages(api, told):
    told("a", status=429, code="rate_limit_exceeded", end="LR")
    told("b", status=503, key="k2")
    told("c", ms={"active": 3000}, server="r9", to="r9")
    told("d", end="SD")

    def asked(query):
        return ids(api.call("GET", f"/demo-chat/requests?{query}"))

    assert asked("status=429") == ["a"]
    assert asked("status=5xx") == ["b"]
    assert asked("code=rate_limit_exceeded") == ["a"]
    assert asked("key=k2") == ["b"]
    assert asked("slowerThan=2") == ["c"]
    assert asked("replica=r9") == asked("replica=big:r9") == ["c"]
    assert asked("outcome=replica_broke") == ["d"]
    assert asked("id=b") == ["b"]
    assert asked("text=completions&limit=1") == ["d"]
    assert asked(f"since={time.time() + 60}") == []
    assert asked(f"until={time.time() + 60}") == ["d", "c", "b", "a"]
    first = api.call("GET", "/demo-chat/requests?limit=3").json()
    assert [item["id"] for item in first["items"]] == ["d", "c", "b"]
    assert asked(f"limit=3&cursor={first['cursor']}") == ["a"]


@pytest.mark.parametrize(
    "query",
    [
        *("status=42", "status=6xx", "status=abc", "outcome=well", "slowerThan=-1", "slowerThan=nan", "since=soon", "until=later"),
        *("id=..%2F", "key=%22", "limit=0", "limit=100000", "cursor=x", "cursor=..%2F..%2Fpasswd:1", "code=%0a", "text=" + "x" * 300),
    ],
)
def test_bad_filters_are_refused(api, told, query):
    refused(api.call("GET", f"/demo-chat/requests?{query}"), 400, "invalid_request")


def test_one_request_is_shown_with_what_edge_and_replica_wrote_of_it(api, told):
    told("req-1")
    now = time.time()
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(now, "debug", "request req-1 POST /v1 200 finished")])
    api.logs.append(
        "admin", "demo-chat", "r1", [messages.LogLine(now, "info", "Aborted chatcmpl-req-1"), messages.LogLine(now, "info", "no")]
    )
    found = api.call("GET", "/demo-chat/requests/req-1").json()
    assert (found["id"], found["edge"]["id"], found["edge"]["end"]) == ("req-1", "req-1", "--")
    assert {entry["text"] for entry in found["logs"]} == {"Aborted chatcmpl-req-1", "request req-1 POST /v1 200 finished"}
    assert "req-1" in found["where"]["logs"]
    assert found["where"]["prompt"] is None
    refused(api.call("GET", "/demo-chat/requests/req-2"), 404, "not_found")
    told("foreign", endpoint="admin/another")
    refused(api.call("GET", "/demo-chat/requests/foreign"), 404, "not_found")


def test_an_operator_sees_every_request_and_the_management_apis_only_when_asked(api, told):
    told("one")
    told("two", endpoint="globex/hidden", tenant="globex")
    told("three", endpoint="-", key="-", tenant="-", status=404)
    told("four", endpoint="-", path="/manage/v2/keys")
    assert ids(api.call("GET", ALL)) == ["three", "two", "one"]
    assert ids(api.call("GET", f"{ALL}?management=true")) == ["four", "three", "two", "one"]
    assert ids(api.call("GET", f"{ALL}?endpoint=globex/hidden")) == ["two"]
    assert api.call("GET", f"{ALL}/two").json()["endpoint"] == "globex/hidden"


def test_others_see_those_of_their_namespaces_alone(api, told):
    theirs = people.user(api.store, "ada", tenant="acme")
    told("own", endpoint="acme/chat")
    told("foreign", endpoint="globex/hidden", tenant="globex")
    told("secret", endpoint="-", path="/manage/v2/keys")
    assert ids(api.call("GET", f"{ALL}?management=true", key=theirs)) == ["own"]
    refused(api.call("GET", f"{ALL}/foreign", key=theirs), 404, "not_found")
    refused(api.call("GET", "/demo-chat/requests", key=theirs), 404, "not_found")


def test_prompts_are_off_until_an_endpoint_asks_for_them(api):
    assert api.create()["requestLog"] == {"prompts": False, "answers": False, "redact": [], "ttlDays": 7.0, "maxBytes": 16384}


def test_switching_prompts_on_makes_no_new_revision(api, told):
    changed = api.call("PUT", "/demo-chat", {"requestLog": {"prompts": True, "redact": ["email", r"ACME-\d{3}"]}}).json()
    assert (changed["requestLog"]["prompts"], changed["status"]["targetRevision"]) == (True, 1)
    [row] = api.call("GET", "/demo-chat/revisions").json()["items"]
    assert row["revision"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"redact": ["(a+)+"]}, {"redact": ["x"] * 17}, {"ttlDays": 0}, {"ttlDays": 1000}),
        *({"maxBytes": 1}, {"maxBytes": 2**30}, {"answers": True}, {"prompt": True}),
    ],
)
def test_a_request_log_that_cannot_be_kept_is_refused(api, told, wrong):
    refused(api.call("PUT", "/demo-chat", {"requestLog": wrong}), 400, "invalid_request")


@pytest.fixture
def kept(api, told):
    told("req-1")
    api.call("PUT", "/demo-chat", {"requestLog": {"prompts": True, "ttlDays": 1}})
    row = api.store.endpoint("admin", "demo-chat")
    api.history.keep_prompts(row, [messages.Prompt("req-1", time.time(), "/v1/completions", '{"prompt": "hi"}', "well", True)])
    return row


def test_a_kept_prompt_is_shown_by_its_request_and_deleted_on_demand(api, kept):
    found = api.call("GET", "/demo-chat/requests/req-1/prompt").json()
    assert (json.loads(found["prompt"]), found["answer"], found["path"], found["truncated"]) == (
        {"prompt": "hi"},
        "well",
        "/v1/completions",
        True,
    )
    assert api.call("GET", "/demo-chat/requests/req-1").json()["where"]["prompt"].endswith("/requests/req-1/prompt")
    refused(api.call("GET", "/demo-chat/requests/req-2/prompt"), 404, "not_found")
    assert api.call("DELETE", "/demo-chat/prompts").json() == {}
    refused(api.call("GET", "/demo-chat/requests/req-1/prompt"), 404, "not_found")


def test_prompts_go_with_their_endpoint(api, kept):
    api.call("DELETE", "/demo-chat")
    api.create()
    refused(api.call("GET", "/demo-chat/requests/req-1/prompt"), 404, "not_found")


def test_prompts_are_for_the_owner_and_admins_and_in_no_other_answer():
    endpoint = "/v2/endpoint/{namespace}/{name}"
    for route in (f"GET {endpoint}/requests/{{request}}/prompt", f"DELETE {endpoint}/prompts"):
        assert roles.RULES[route] == roles.Rule(roles.ADMIN, owner=True)


def test_what_a_request_sent_is_in_no_list(api, kept):
    for path in ("/demo-chat/requests", "/demo-chat/requests/req-1", "/demo-chat/events", "/demo-chat/logs", "/demo-chat"):
        assert "well" not in json.dumps(api.call("GET", path).json())
