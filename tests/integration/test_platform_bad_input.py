"""Bad input at every entrance: status and body as promised, the endpoint's state and events tell the same story."""

import httpx
import pytest


@pytest.fixture(scope="module")
def there(platform):
    platform.create("there")
    yield platform
    platform.delete("there")


GOOD = {"name": "never-made", "model": {"image": {"echo": {}}}}
MANAGEMENT = [
    ({**GOOD, "name": "X"}, "name"),
    ({**GOOD, "name": "-bad-"}, "name"),
    ({**GOOD, "colour": "blue"}, "colour"),
    ({**GOOD, "compute": {"scaling": {"minReplica": "many"}}}, "compute.scaling.minReplica"),
    ({**GOOD, "compute": {"scaling": {"minReplica": 5, "maxReplica": 1}}}, "compute.scaling"),
    ({**GOOD, "compute": {"instanceType": "nvidia-h9000"}}, "compute.instanceType"),
    ({**GOOD, "compute": {"instanceSize": "x3"}}, "compute.instanceSize"),
    ({**GOOD, "model": {"image": {"llamacpp": {}}}}, "model.image"),
    ({**GOOD, "model": {"repository": "not a repo!", "image": {"vLLM": {}}}}, "model.repository"),
    ({**GOOD, "model": {"repository": "/etc", "image": {"vLLM": {}}}}, "model.repository"),
    ({**GOOD, "model": {"repository": "a/b", "image": {"vLLM": {}}, "args": ["--nonsense", "1"]}}, "model.args"),
    ({**GOOD, "model": {"repository": "a/b", "image": {"vLLM": {}}, "args": ["--max-num-seqs", "abc"]}}, "model.args"),
    ({**GOOD, "model": {"repository": "a/b", "image": {"vLLM": {}}, "args": ["--api-key", "x"]}}, "model.args"),
    ({**GOOD, "type": "secret"}, "type"),
    ({**GOOD, "provider": {"vendor": "aws", "region": "us-east-1"}}, "provider"),
    ([], ""),
    ("text", ""),
    (None, ""),
]


@pytest.mark.parametrize(("body", "param"), MANAGEMENT)
def test_a_bad_endpoint_is_refused_with_the_field_and_nothing_is_made(there, body, param):
    before = there.manage("GET", "").json()["items"]
    answer = there.manage("POST", "", body)
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert told["error_type"] == "invalid_request"
    assert told["error"]
    assert answer.headers["x-error-message"]
    if param:
        assert told["param"].startswith(param), told
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    assert len(there.manage("GET", "").json()["items"]) == len(before)


@pytest.mark.parametrize(
    ("content", "kind", "codes"),
    [
        (b'{"name": ', "application/json", {400}),
        (b"\xff\xfe", "application/json", {400}),
        (b"[" * 100_000, "application/json", {400, 413}),
        (b'{"name": ' + b"9" * 5000 + b"}", "application/json", {400}),
        (b'{"name": NaN}', "application/json", {400}),
        (b"name=x", "application/x-www-form-urlencoded", {400, 415}),
        (b"", "application/json", {400}),
        (b'{"name": "' + b"x" * 2_000_000 + b'"}', "application/json", {413}),
    ],
)
def test_a_body_that_is_no_json_is_never_a_server_error(there, content, kind, codes):
    answer = httpx.post(
        f"{there.url}/manage/v2/endpoint/admin", content=content, headers={"authorization": f"Bearer {there.token}", "content-type": kind}
    )
    assert answer.status_code in codes, answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/endpoints/admin/there/v1/chat/completions"])
@pytest.mark.parametrize(
    ("content", "kind", "codes"),
    [
        (b'{"model": "there", "messages": ', "application/json", {400, 404}),
        (b"", "application/json", {400, 404}),
        (b"\xff\xfe", "application/json", {400, 404}),
        (b"[" * 100_000, "application/json", {400, 404, 413}),
        (b'{"model": "there"}', "application/json", {400}),
        (b'{"model": "there", "messages": 7}', "application/json", {400}),
        (b'{"model": "there", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}', "application/json", {400}),
        (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', "application/json", {400, 404}),
        (b"model=there", "text/plain", {400, 404, 415}),
    ],
)
def test_a_bad_inference_body_gets_an_error_of_openais_shape(there, route, content, kind, codes):
    answer = httpx.post(there.url + route, content=content, headers={"authorization": f"Bearer {there.token}", "content-type": kind})
    assert answer.status_code in codes, answer.text
    assert answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]


def test_an_unknown_model_is_404_in_the_shape_of_its_dialect(there):
    with there.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "nothing", "messages": [{"role": "user", "content": "x"}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        answer = client.post("/endpoints/admin/nothing/", json={"inputs": "x"})
        assert answer.status_code == 404 and answer.json()["error_type"] in {"not_found", "model_not_found"}
        assert client.get("/manage/v2/endpoint/admin/nothing").status_code == 404
        assert client.get("/manage/v2/endpoint/elsewhere").status_code == 404
        assert client.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic abc"}, {"authorization": "Bearer ' OR '1'='1"}]
)
def test_without_a_valid_key_everything_is_401(there, header):
    for method, path in [
        ("POST", "/v1/chat/completions"),
        ("POST", "/endpoints/admin/there/v1/chat/completions"),
        ("POST", "/endpoints/admin/there/"),
        ("GET", "/v1/models"),
        ("GET", "/manage/v2/endpoint/admin"),
        ("POST", "/manage/v2/endpoint/admin"),
    ]:
        answer = httpx.request(method, there.url + path, headers=header, json={} if method == "POST" else None)
        assert answer.status_code == 401, (method, path, answer.text)


@pytest.mark.parametrize(
    "path", ["/metrics", "/pause", "/docs", "/openapi.json", "/invocations", "/v1/load_lora_adapter", "/_moorage/stats", "/load"]
)
def test_engine_routes_that_are_not_for_users_are_404(there, path):
    with there.client() as client:
        for method in ("GET", "POST"):
            assert client.request(method, f"/endpoints/admin/there{path}").status_code in (404, 405)


@pytest.mark.parametrize(
    "path",
    ["//v1/models", "/v1/../manage", "/endpoints/admin/there/v1/%2e%2e/metrics", "/endpoints/admin/there/v1//models", "/v1/models;x"],
)
def test_path_tricks_are_refused(there, path):
    answer = httpx.get(there.url + path, headers={"authorization": f"Bearer {there.token}"}, follow_redirects=False)
    assert answer.status_code in (400, 404), (path, answer.status_code)
