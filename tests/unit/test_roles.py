"""Every route of the management API, asked as every role, by the owner and by another tenant: what the table says is what happens."""

import re

import pytest
from support import people
from support.api import ECHO, refused

from cluster import keys, roles

OPEN = {"GET /health"}
SECRET = "hidden-from-others"
"""Stands in everything of the first tenant that a list could show."""


@pytest.fixture
def world(api):
    """A tenant with something of every kind, whose endpoint is ann's, and a second tenant."""
    store = api.store
    api.tokens = {
        role: people.user(store, f"a-{role}", role, "acme", description=SECRET) for role in (roles.VIEWER, roles.MEMBER, roles.ADMIN)
    }
    api.tokens[roles.OPERATOR] = api.token
    api.tokens["owner"] = people.user(store, "ann", roles.MEMBER, "acme", description=SECRET)
    api.tokens["rival"] = people.user(store, "eve", roles.ADMIN, "rival")
    made = api.call("POST", "/manage/v2/endpoint/acme", {**ECHO, "description": SECRET, "tags": [SECRET]}, key=api.tokens["owner"])
    assert made.status_code == 200, made.text
    model = {"name": "demo-chat", "repository": "org/model", "revision": "c" * 40, "description": SECRET}
    assert api.call("POST", "/manage/v2/models/acme", model).status_code == 200
    api.platform_key = keys.key_id(people.key(store, "ann", description=SECRET))
    api.endpoint_key = made.json()["apiKey"]["id"]
    return api


def ask(world, rule, token):
    """The answer of a route to an empty request about the first tenant's things."""
    method, _, path = rule.partition(" ")
    key = world.platform_key if path.startswith("/v2/keys") else world.endpoint_key
    places = {"namespace": "acme", "name": "demo-chat", "number": "1", "adapter": "style", "tenant": "acme", "user": "ann", "key": key}
    body = {} if method in ("POST", "PUT", "PATCH") else None
    return world.call(method, "/manage" + path.format_map(Anything(places)), body, key=token)


class Anything(dict):
    """A value for parameters of which this test knows nothing."""

    def __missing__(self, name):
        return "x"


def check(world, rule):
    """Every role in turn, the least first: refused ones change nothing."""
    needed = roles.RULES[rule]
    for role in roles.ROLES:
        answer = ask(world, rule, world.tokens[role])
        if roles.rank(role) < roles.rank(needed.role):
            sentence = refused(answer, 403, "forbidden")
            assert needed.role in sentence, sentence
        elif role not in (roles.ADMIN, roles.OPERATOR) and "/v2/keys/{key}" in rule:
            refused(answer, 404, "not_found")  # it is ann's key: one manages one's own
        else:
            assert answer.status_code not in (401, 403) and answer.status_code < 500, (rule, role, answer.text)


CHANGING = [rule for rule in roles.RULES if not rule.startswith("GET")]


def test_what_looks_refuses_lesser_roles_and_lets_the_others_through(world):
    for rule in roles.RULES.keys() - set(CHANGING):
        check(world, rule)


@pytest.mark.parametrize("rule", CHANGING)
def test_what_changes_refuses_lesser_roles_and_lets_the_others_through(world, rule):
    check(world, rule)


def test_the_owner_of_an_endpoint_may_what_other_members_may_not(world):
    owned = [rule for rule, needed in roles.RULES.items() if needed.owner]
    for rule in sorted(owned, key="DELETE /v2/endpoint/{namespace}/{name}".__eq__):  # that one last
        answer = ask(world, rule, world.tokens["owner"])
        assert answer.status_code not in (401, 403) and answer.status_code < 500, (rule, answer.text)


def test_another_tenants_admin_neither_reaches_nor_sees_nor_changes_anything(world):
    def everything():
        store = world.store
        return store.endpoints(), store.users("acme"), store.namespaces("acme"), store.tenants(), store.keys(namespace="acme")

    before = everything()
    for rule in roles.RULES:
        answer = ask(world, rule, world.tokens["rival"])
        assert SECRET not in answer.text, (rule, answer.text)
        if "{" in rule:
            assert answer.status_code in (403, 404), (rule, answer.text)
        elif answer.status_code < 300:
            shown = re.sub(r'"resource":"[^"]*"|"namespace":"[^"]*"', "", answer.text) if rule == "GET /v2/audit" else answer.text
            assert "acme" not in shown, (rule, answer.text)  # the audit log says what one asked for oneself
    assert before == everything()


def test_no_route_answers_without_a_key(world):
    for rule in roles.RULES:
        refused(ask(world, rule, ""), 401, "invalid_api_key")


def test_a_route_that_no_rule_names_is_refused_to_everybody(world):
    (route,) = (one for one in world.app_routes() if one.path == "/v2/settings")
    world.app.add_api_route("/v2/new", route.endpoint, methods=["GET"], dependencies=[])
    world.app.openapi_schema = None
    assert "/v2/new" in world.call("GET", "/manage/openapi.json").json()["paths"]
    for token in world.tokens.values():
        refused(world.call("GET", "/manage/v2/new", key=token), 403, "forbidden")


def test_every_route_but_health_has_a_rule(world):
    assert {f"{method} {path}" for method, path, _ in world.routes()} - OPEN == set(roles.RULES)


def test_roles_are_ranked_and_an_unknown_one_may_nothing():
    assert [roles.rank(role) for role in roles.ROLES] == [0, 1, 2, 3]
    assert roles.rank("") == roles.rank("root") == -1
    assert roles.lesser(roles.ADMIN, roles.VIEWER) == roles.lesser(roles.VIEWER, roles.ADMIN) == roles.VIEWER
    assert roles.lesser("", roles.OPERATOR) == ""
