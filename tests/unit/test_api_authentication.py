"""Who may call the management API's routes, and which headers hold a key."""

import pytest
from support import people
from support.api import HERE, names, refused


def test_every_route_without_a_key_is_401_but_health_and_the_description(api):
    routes = list(api.routes())
    assert len(routes) > 25
    for method, path, url in routes:
        answer = api.call(method, url, {} if method in ("POST", "PUT", "PATCH") else None, key="")
        if path == "/health":
            assert answer.status_code == 200
        else:
            refused(answer, 401, "invalid_api_key")


def test_every_route_of_an_endpoint_answers_an_endpoint_key_with_403_and_a_foreign_namespace_with_404(api):
    key = api.create()["apiKey"]["key"]
    foreign = people.user(api.store, "tom")
    for method, path, url in api.routes():
        body = {} if method in ("POST", "PUT", "PATCH") else None
        if path != "/health":
            refused(api.call(method, url, body, key=key), 403, "forbidden")
        if "{namespace}" in path:
            refused(api.call(method, url, body, key=foreign), 404, "not_found")
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
