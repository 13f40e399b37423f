"""How a key becomes an actor: whose role and namespaces it has, where the request came from, and when it is nobody's."""

import types

import pytest
from starlette.requests import Request
from support import people

from cluster import errors, keys, records
from cluster.api.auth import Authenticator
from cluster.store import MemoryStore

NOW = 1000.0


@pytest.fixture
def store():
    """Two tenants; `team` has three namespaces."""
    made = MemoryStore()
    people.operator(made)
    made.add_namespace("team")
    for name in ("lab", "prod"):
        made.create_namespace(records.Namespace(name, "team"))
    return made


def ask(store, token, path="/v2/settings", headers=(), **scope):
    given = [(b"authorization", f"Bearer {token}".encode()), *headers]
    route = types.SimpleNamespace(path=path)
    base = {"type": "http", "method": "GET", "headers": given, "path_params": {}, "route": route, "client": ("127.0.0.1", 4711)}
    return Authenticator(store, clock=lambda: NOW)(Request({**base, **scope}))


def test_a_user_enters_all_of_its_tenant_or_its_home_and_what_it_was_given(store):
    assert ask(store, people.user(store, "tom")).namespaces == {"team", "lab", "prod"}
    some = people.user(store, "ann", "member", namespace="lab", namespaces=("prod", "admin", "gone"))
    actor = ask(store, some)
    assert (actor.name, actor.tenant, actor.namespace, actor.namespaces) == ("ann", "team", "lab", {"lab", "prod"})


def test_an_operator_enters_everything_by_an_operators_key_alone(store):
    token = people.user(store, "root", "operator")
    actor = ask(store, token)
    assert (actor.operator, actor.namespaces) == (True, {"admin", "team", "lab", "prod"})
    lesser = ask(store, people.key(store, "root", role="admin"))
    assert (lesser.operator, lesser.role, lesser.namespaces) == (False, "admin", {"team", "lab", "prod"})


@pytest.mark.parametrize(
    ("user", "key", "acts"),
    [("viewer", "admin", "viewer"), ("admin", "viewer", "viewer"), ("member", "member", "member"), ("admin", "", "")],
)
def test_an_actor_has_the_lesser_role_of_its_user_and_its_key(store, user, key, acts):
    people.user(store, "tom", user)
    token = people.key(store, "tom", role=key)
    if acts:
        assert ask(store, token).role == acts
    else:
        with pytest.raises(errors.Forbidden):
            ask(store, token)


def test_a_key_is_good_until_the_second_in_which_it_expires(store):
    people.user(store, "tom")
    assert ask(store, people.key(store, "tom", expires_at=NOW + 1)).name == "tom"
    with pytest.raises(errors.InvalidApiKey, match="expired"):
        ask(store, people.key(store, "tom", expires_at=NOW))


def test_a_key_without_an_active_user_is_nobodys(store):
    token = people.user(store, "tom")
    store.update_user("tom", {"active": False})
    with pytest.raises(errors.InvalidApiKey):
        ask(store, token)
    minted = keys.mint(keys.PLATFORM)
    store.add_key(records.Key(minted.id, minted.digest, keys.PLATFORM, "team", owner="nobody", role="operator"))
    with pytest.raises(errors.InvalidApiKey):
        ask(store, minted.key)


def test_the_source_is_the_address_that_the_edge_wrote_last(store):
    token = people.user(store, "tom")
    assert ask(store, token).source == "127.0.0.1"
    given = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"7.7.7.7, 10.0.0.9")]
    assert ask(store, token, headers=given).source == "10.0.0.9"


def test_an_actor_knows_the_id_of_its_request(store):
    assert ask(store, people.user(store, "tom"), state={"request_id": "r-1"}).request_id == "r-1"


def test_what_no_rule_names_is_refused_whatever_the_role(store):
    with pytest.raises(errors.Forbidden):
        ask(store, people.operator(store), path="/v2/unheard-of")
    with pytest.raises(errors.Forbidden):
        ask(store, people.operator(store), method="PURGE")


@pytest.mark.parametrize(
    ("role", "owner", "decides"), [("viewer", True, False), ("member", True, True), ("member", False, False), ("admin", False, True)]
)
def test_owners_decide_while_they_are_members_and_admins_always(store, role, owner, decides):
    actor = ask(store, people.user(store, "tom", role))
    assert actor.decides("tom" if owner else "ann") is decides
