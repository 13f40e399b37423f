"""Whatever JSON comes, the management API answers it: never a server error, and what it stored can be read back."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.management import Management

HERE = "/manage/v2/endpoint/admin"
WHOLE = {
    "name": "demo-chat",
    "type": "authenticated",
    "description": "x",
    "tags": ["a"],
    "strategy": "surge",
    "provider": {"vendor": "local", "region": "local"},
    "route": {"default": "/v1/completions"},
    "compute": {
        "accelerator": "cpu",
        "instanceType": "local-cpu",
        "instanceSize": "x1",
        "plan": "hourly",
        "scaling": {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 5, "measure": {"pendingRequests": 1}, "startAtZero": True},
    },
    "model": {
        "repository": "org/model",
        "revision": "main",
        "task": "text-generation",
        "image": {"echo": {"tokensPerSecond": 1, "tag": "x"}},
        "command": ["a"],
        "args": ["--max-num-seqs", "4"],
        "env": {"A": "b"},
        "secrets": {"TOKEN": "x"},
        "settings": {"llm": {"dtype": "auto"}, "tokenizer": {"chatTemplate": "x"}, "system": {"blockSize": 16}},
    },
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["x1", "x2", "nvidia-h200", "gpu", "s3://b/c", "/etc", "vLLM", "--nonsense", "-tp", "\0", "../x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["vLLM", "echo", "tgi", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree, here=()):
    """Paths of every value in a tree."""
    for name, value in tree.items():
        yield (*here, name)
        if isinstance(value, dict):
            yield from places(value, (*here, name))


@st.composite
def mutated(draw):
    """A whole endpoint with a few of its parts replaced, taken away or added to."""
    tree = copy.deepcopy(WHOLE)
    for path in draw(st.lists(st.sampled_from(sorted(places(WHOLE))), min_size=1, max_size=3)):
        parent = tree
        for part in path[:-1]:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            kind = draw(st.sampled_from(["replace", "remove", "add"]))
            parent.pop(path[-1], None)
            if kind != "remove":
                parent[path[-1] if kind == "replace" else draw(st.text(max_size=8))] = draw(VALUES)
    return tree


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    return Management(tmp_path_factory.mktemp("home"))


def ask(api, method, path, body=None):
    headers = {"authorization": f"Bearer {api.token}", "content-type": "application/json"}
    content = None if method in ("GET", "DELETE") else json.dumps(body)
    answer = api._http.request(method, HERE + path, content=content, headers=headers)
    assert answer.status_code in (200, 400, 409), (body, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"] and answer.json()["error_type"]
    return answer


def clear(api):
    """Nothing is left of the example before."""
    for item in ask(api, "GET", "").json()["items"]:
        assert ask(api, "DELETE", f"/{item['name']}").status_code == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=mutated())
def test_any_body_is_answered_and_what_was_made_is_readable(api, body):
    clear(api)
    ask(api, "POST", "?dryRun=true", body)
    if ask(api, "POST", "", body).status_code == 200:
        (item,) = ask(api, "GET", "").json()["items"]
        assert ask(api, "PUT", f"/{item['name']}", {"compute": item["compute"]}).json()["generation"] == item["generation"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=mutated() | st.dictionaries(st.sampled_from(sorted(WHOLE)), VALUES, max_size=3))
def test_any_change_is_answered_and_leaves_a_readable_endpoint(api, body):
    clear(api)
    ask(api, "POST", "", WHOLE)
    body.pop("name", None)
    ask(api, "PUT", "/demo-chat?dryRun=true", body)
    ask(api, "PUT", "/demo-chat", body)
    assert ask(api, "GET", "/demo-chat").json()["name"] == "demo-chat"
    assert ask(api, "GET", "/demo-chat/revisions").status_code == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=VALUES)
def test_any_json_is_answered_where_a_key_or_a_revision_is_expected(api, body):
    clear(api)
    ask(api, "POST", "", WHOLE)
    for method, path in [("POST", "/demo-chat/keys"), ("POST", "/demo-chat/rollback"), ("PUT", "/demo-chat")]:
        ask(api, method, path, body)
