"""The management API's client: routes, who one is, and the server's sentence on failure."""

import json

import httpx
import pytest

from cluster import home
from cluster.cli import client


def api(answer, namespace="admin"):
    return client.Client("http://x/", "key", namespace, httpx.MockTransport(answer))


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """An environment without a platform."""
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.delenv("MOORAGE_URL", raising=False)
    monkeypatch.delenv("MOORAGE_TOKEN", raising=False)
    return home.Home(tmp_path)


def test_the_key_travels_in_the_header():
    seen = []
    api(lambda request: seen.append(request.headers["authorization"]) or httpx.Response(200, json={})).call("GET", "/")
    assert seen == ["Bearer key"]


def test_a_name_may_carry_its_namespace():
    one = api(lambda request: httpx.Response(500))
    assert one.path("demo", "/pause") == "/manage/v2/endpoint/admin/demo/pause"
    assert one.path("other/demo") == "/manage/v2/endpoint/other/demo"
    assert one.path() == "/manage/v2/endpoint/admin"


def test_a_foreign_key_asks_the_server_for_its_namespace():
    def answer(request):
        assert request.url.path == "/manage/api/whoami-v2"
        return httpx.Response(200, json={"type": "user", "name": "alice"})

    assert api(answer, namespace=None).path() == "/manage/v2/endpoint/alice"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": "No such endpoint.", "error_type": "not_found"}, "No such endpoint."),
        ({"error": ["one", "two"]}, "one, two"),
        ({"error": {"message": "No valid key.", "code": "invalid_api_key"}}, "No valid key."),
        ({}, "The platform answered 404."),
        ([], "The platform answered 404."),
    ],
)
def test_a_refusal_is_the_servers_sentence(body, sentence):
    with pytest.raises(client.ApiError) as caught:
        api(lambda request: httpx.Response(404, json=body)).call("GET", "/")
    assert caught.value.message == sentence and caught.value.status == 404


def test_an_answer_that_is_no_json_is_still_a_sentence():
    with pytest.raises(client.ApiError, match="The platform answered 502"):
        api(lambda request: httpx.Response(502, text="<html>")).call("GET", "/")


def test_nobody_there_says_what_to_do():
    def refuse(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(client.NoPlatform, match="moorage up"):
        api(refuse).call("GET", "/")


def test_a_stream_that_is_cut_is_told_in_words():
    def cut(request):
        raise httpx.RemoteProtocolError("incomplete")

    with pytest.raises(client.NoPlatform, match="RemoteProtocolError"):
        list(api(cut).lines("/", {}))


def test_all_pages_of_a_list_are_read():
    def answer(request):
        cursor = request.url.params.get("cursor")
        page = {"items": [{"name": cursor or "first"}], "cursor": None if cursor else "second"}
        return httpx.Response(200, json=page)

    assert [item["name"] for item in api(answer).items("/")] == ["first", "second"]


def test_lines_are_objects_as_they_come():
    text = "\n".join(json.dumps({"n": n}) for n in range(3)) + "\n\n"
    assert [line["n"] for line in api(lambda request: httpx.Response(200, text=text)).lines("/", {})] == [0, 1, 2]


def test_without_a_platform_the_way_to_one_is_said(nobody):
    with pytest.raises(client.NoPlatform, match="run `moorage up`"):
        client.connect()


def test_the_environment_goes_before_the_credentials(nobody, monkeypatch):
    home.write_credentials(nobody, home.Credentials("http://file", "file-key", "admin"))
    with client.connect() as one:
        assert (one.url, one.token, one.namespace) == ("http://file", "file-key", "admin")
    monkeypatch.setenv("MOORAGE_URL", "http://variable")
    monkeypatch.setenv("MOORAGE_TOKEN", "variable-key")
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json={"name": "bob"}))
    with client.connect(answer) as one:
        assert (one.url, one.token, one.namespace) == ("http://variable", "variable-key", "bob")
