"""What holds for requests on a running endpoint: revoked keys, autoscaling, access, request ids."""

import contextlib
import time

import httpx
import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "steady"


@pytest.fixture(scope="module")
def steady(platform):
    platform.create(NAME, echo={"tokensPerSecond": 20, "maxConcurrency": 64})
    yield platform
    platform.delete(NAME)


def url(platform, route="/v1/chat/completions", name=NAME):
    return f"{platform.url}/endpoints/admin/{name}{route}"


def running(platform, name=NAME):
    """Requests that the endpoint's engines run or hold waiting, as the management API tells."""
    return platform.manage("GET", f"/{name}/metrics").json()["running"]


def new_key(platform, name=NAME, **fields):
    answer = platform.manage("POST", f"/{name}/keys", {"description": "a test", **fields})
    assert answer.status_code in (200, 201), answer.text
    made = answer.json()
    until(lambda: platform.chat(name, key=made["key"], max_tokens=1).status_code == 200, 5, what="the key works")
    return made


def test_a_revoked_key_is_refused_within_a_second_and_its_stream_is_cut(steady):
    made = new_key(steady)
    with Load(
        url(steady),
        made["key"],
        rate=5,
        body={"model": NAME, "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 600},
    ) as streams:
        until(lambda: running(steady) >= 3, what="streams run")
        answer = steady.manage("DELETE", f"/{NAME}/keys/{made['id']}")
        revoked = time.monotonic()
        assert answer.status_code == 200, answer.text
        until(lambda: steady.chat(NAME, key=made["key"], max_tokens=1).status_code == 401, 5, what="refused")
        assert time.monotonic() - revoked < 1
        streams.stop()
        assert time.monotonic() - revoked < 6
    assert not [answer for answer in streams.answers if answer.good]
    assert steady.chat(NAME, max_tokens=1).status_code == 200
    listed = {key["id"]: key for key in steady.manage("GET", f"/{NAME}/keys").json()["items"]}
    assert listed[made["id"]]["status"] == "revoked"


def test_a_key_opens_only_its_own_endpoint(steady):
    steady.create("neighbour")
    try:
        key = new_key(steady)["key"]
        assert steady.chat("neighbour", key=key).status_code == 404
        assert steady.chat(NAME, key=key, max_tokens=1).status_code == 200
        assert httpx.get(f"{steady.url}/manage/v2/endpoint/admin", headers={"authorization": f"Bearer {key}"}).status_code in (401, 403)
        models = httpx.get(f"{steady.url}/v1/models", headers={"authorization": f"Bearer {key}"}).json()["data"]
        assert [model["id"] for model in models] == [NAME]
    finally:
        steady.delete("neighbour")


def test_requests_per_minute_of_a_key_are_counted_exactly(steady):
    made = new_key(steady, requestsPerMinute=10)
    if time.time() % 60 > 45:  # the window is the clock's minute: do not straddle two
        until(lambda: time.time() % 60 < 5, 20, what="a new minute")
    answers = [steady.chat(NAME, key=made["key"], max_tokens=1) for _ in range(15)]
    codes = [answer.status_code for answer in answers]
    assert 8 <= codes.count(200) <= 10  # the key was tried once or twice before
    refused = answers[-1]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == "10"


def test_load_brings_replicas_and_their_going_brings_the_count_down(platform):
    scaling = {"minReplica": 1, "maxReplica": 3, "targetConcurrency": 2}
    platform.create("elastic", echo={"tokensPerSecond": 20}, scaling=scaling)
    try:
        body = {"model": "elastic", "messages": [{"role": "user", "content": "x"}], "max_tokens": 40}
        with Load(url(platform, name="elastic"), platform.token, rate=4, body=body) as load:
            until(lambda: platform.status("elastic")["readyReplica"] == 3, 60, what="three replicas")
        assert not bad(load.answers)
        until(lambda: platform.status("elastic")["readyReplica"] == 1, 120, what="one replica again")
    finally:
        platform.delete("elastic")


def test_every_answer_carries_a_request_id(steady):
    for answer in (
        steady.chat(NAME, max_tokens=1),
        steady.chat("nothing-here"),
        httpx.get(f"{steady.url}/nowhere"),
        steady.manage("GET", ""),
        httpx.get(f"{steady.url}/health"),
    ):
        assert answer.headers.get("x-request-id"), (answer.url, answer.status_code)


def test_engines_refuse_whoever_is_not_the_edge(steady):
    ports = set()
    for line in steady.processes().values():
        words = line.split()
        if "deployments.echo_server" in line and "--port" in words:
            ports.add(int(words[words.index("--port") + 1]))
    assert ports
    for port in ports:
        for route in ("/health", "/v1/models", "/v1/chat/completions", "/", "/metrics", "/_moorage/stats"):
            assert httpx.get(f"http://127.0.0.1:{port}{route}").status_code == 403


def test_public_endpoints_need_no_key_and_private_ones_their_namespace(platform):
    platform.create("open-door", type="public")
    platform.create("back-door", type="private")
    body = {"model": "x", "messages": [{"role": "user", "content": "hello"}]}
    try:
        until(lambda: httpx.post(url(platform, name="open-door"), json=body).status_code == 200, 5, what="public answers")
        assert httpx.post(url(platform, name="back-door"), json=body).status_code == 401
        assert platform.chat("back-door").status_code == 200
    finally:
        platform.delete("open-door")
        platform.delete("back-door")


def test_predict_goes_to_the_default_route_or_where_the_route_header_says(steady):
    headers = {"authorization": f"Bearer {steady.token}"}
    chat = {"model": "odsc-llm", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    answer = httpx.post(url(steady, "/predict"), json={"model": "odsc-llm", "prompt": "hello", "max_tokens": 1}, headers=headers)
    assert answer.json()["object"] == "text_completion"
    answer = httpx.post(url(steady, "/predict"), json=chat, headers=headers | {"route": "/v1/chat/completions"})
    assert answer.json()["object"] == "chat.completion"
    for route in ("/pause", "//v1/chat/completions", "/metrics", "/v1/%2e%2e/metrics", ""):
        with contextlib.suppress(httpx.LocalProtocolError):
            assert httpx.post(url(steady, "/predict"), json=chat, headers=headers | {"route": route}).status_code in (400, 404)


def test_large_bodies_find_their_model_and_too_large_ones_are_refused(steady):
    body = {"messages": [{"role": "user", "content": "word " * 200_000}], "max_tokens": 1, "model": NAME}
    with steady.client() as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        huge = client.post("/v1/chat/completions", content=b"x" * (101 * 2**20), headers={"content-type": "application/json"})
    assert (huge.status_code, huge.json()["error"]["code"]) == (413, "too_large")


def test_metrics_tell_what_was_answered_and_what_replicas_use_and_prometheus_gets_them(steady):
    assert steady.chat(NAME, max_tokens=3).status_code == 200

    def told():
        found = steady.manage("GET", f"/{NAME}/metrics").json()
        (replica, *_) = found["replicas"]
        return found if replica["hardware"] and replica["requests"].get("200") else None

    found = until(told, 30, what="the replica has told what it uses, and the gateway what was answered")
    (replica, *_) = found["replicas"]
    assert replica["state"] == "running" and replica["since"]["running"] and replica["hardware"]["memoryRss"] > 10 << 20
    assert found["requests"]["byStatus"]["200"] >= 1 and found["latency"]["total"]["p50"] > 0
    assert [point["running"] for point in found["timeline"]][-1] >= 1
    headers = {"authorization": f"Bearer {steady.token}"}
    export = httpx.get(f"{steady.url}/manage/v2/open-metrics", headers=headers)
    assert export.headers["content-type"].startswith("application/openmetrics-text")
    assert f'http_requests_total{{endpoint="admin/{NAME}",replica_id="{replica["id"]}",status_code="200"}}' in export.text


def test_a_tenant_lives_apart_and_a_user_who_is_deactivated_is_refused_at_once(steady):
    def manage(method, path, body=None, key=None, status=200):
        headers = {"authorization": f"Bearer {key or steady.token}"}
        answer = httpx.request(method, f"{steady.url}/manage/v2{path}", json=body, headers=headers, timeout=60)
        assert answer.status_code == status, answer.text
        return answer.json()

    def call(namespace, name, key):
        body = {"model": name, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(
            f"{steady.url}/endpoints/{namespace}/{name}/v1/chat/completions", json=body, headers=headers, timeout=60
        ).status_code

    manage("POST", "/tenants", {"name": "acme"})
    manage("POST", "/namespaces", {"name": "acme", "tenant": "acme"})
    made = {}
    for name, role in (("ann", "member"), ("vic", "viewer")):
        manage("POST", "/users", {"name": name, "tenant": "acme", "role": role})
        made[name] = manage("POST", "/keys", {"user": name})["key"]
    endpoint = {"name": "theirs", "model": {"image": {"echo": {}}}}
    assert "member" in manage("POST", "/endpoint/acme", endpoint, made["vic"], 403)["error"]
    manage("POST", "/endpoint/acme", endpoint, made["ann"])
    try:
        until(lambda: manage("GET", "/endpoint/acme/theirs", key=made["vic"])["status"]["state"] == "running", what="it runs")
        assert call("acme", "theirs", made["ann"]) == 200
        assert call("admin", NAME, made["ann"]) == 404
        assert call("acme", "theirs", steady.token) == 404  # an operator's key calls what its own tenant may
        manage("GET", "/endpoint/admin", key=made["ann"], status=404)
        manage("PATCH", "/users/ann", {"active": False})
        assert call("acme", "theirs", made["ann"]) == 401
        manage("GET", "/namespaces", key=made["ann"], status=401)
        manage("PATCH", "/users/ann", {"active": True})
        assert call("acme", "theirs", made["ann"]) == 200
    finally:
        manage("DELETE", "/endpoint/acme/theirs")
        for name in made:
            manage("DELETE", f"/users/{name}")
        manage("DELETE", "/namespaces/acme")
        manage("DELETE", "/tenants/acme")
    assert call("acme", "theirs", made["ann"]) == 401
