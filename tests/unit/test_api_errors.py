"""Errors of the management API have one shape, a request id, and nothing that they should not tell."""

from support.api import ECHO, refused


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
