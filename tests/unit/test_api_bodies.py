"""Bodies that the management API reads, and those that it refuses: odd, too large, of another type, or with a wrong field."""

import json

import pytest
from support.api import ECHO, names, refused

from cluster.api import bodies

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
