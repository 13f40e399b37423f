"""What every store promises of tenants, namespaces and users."""

from __future__ import annotations

import dataclasses

import pytest
from support.store_rows import FIELDS, endpoint

from cluster import errors, records
from cluster.store import Store


@pytest.fixture
def acme(store: Store) -> Store:
    """A tenant with two namespaces, an operator and a member."""
    store.add_tenant(records.Tenant("acme", "They make everything.", 1.0))
    for name in ("lab", "acme"):
        store.create_namespace(records.Namespace(name, "acme", f"the {name}", 2.0))
    store.add_user(records.User("root", "acme", "acme", role="operator", created_at=3.0, updated_at=3.0))
    store.add_user(
        records.User("ann", "acme", "lab", "service", namespaces=("acme",), description="builds", created_at=4.0, updated_at=4.0)
    )
    return store


def key(identity: str, owner: str, kind: str = "p") -> records.Key:
    return records.Key(identity, f"digest of {identity}", kind, "acme", owner=owner, created_at=float(identity[1:]))


def test_a_namespace_that_is_only_named_gets_the_tenant_of_its_name_and_is_added_once(store: Store) -> None:
    for name in ("zeta", "acme", "zeta", "a-b"):
        store.add_namespace(name)
    assert [(one.name, one.tenant) for one in store.namespaces()] == [("a-b", "a-b"), ("acme", "acme"), ("zeta", "zeta")]
    assert [one.name for one in store.tenants()] == ["a-b", "acme", "zeta"]


def test_a_namespace_that_is_only_named_stays_whose_it_is(acme: Store) -> None:
    acme.add_namespace("lab")
    found = acme.namespace("lab")
    assert found is not None and (found.tenant, found.description) == ("acme", "the lab")
    assert [one.name for one in acme.tenants()] == ["acme"]


def test_what_is_added_is_found_as_it_was_given(acme: Store) -> None:
    assert acme.tenant("acme") == records.Tenant("acme", "They make everything.", 1.0)
    assert acme.namespaces("acme") == [records.Namespace(name, "acme", f"the {name}", 2.0) for name in ("acme", "lab")]
    assert acme.namespaces("other") == [] and acme.namespace("other") is None
    ann = records.User("ann", "acme", "lab", "service", "member", ("acme",), True, "builds", 4.0, 4.0)
    assert acme.user("ann") == ann and acme.users("acme")[0] == ann
    assert acme.users("other") == [] and acme.user("other") is None


def test_a_name_is_given_once(acme: Store) -> None:
    with pytest.raises(errors.AlreadyExists):
        acme.add_tenant(records.Tenant("acme"))
    acme.add_tenant(records.Tenant("rival"))
    with pytest.raises(errors.AlreadyExists):
        acme.create_namespace(records.Namespace("lab", "rival"))
    with pytest.raises(errors.AlreadyExists):
        acme.add_user(records.User("ann", "acme", "acme"))


def test_what_belongs_to_a_tenant_that_there_is_not_is_refused(acme: Store) -> None:
    with pytest.raises(errors.NotFound, match="tenant 'none'"):
        acme.create_namespace(records.Namespace("x", "none"))
    with pytest.raises(errors.NotFound, match="tenant 'none'"):
        acme.add_user(records.User("bob", "none", "lab"))
    with pytest.raises(errors.NotFound, match="namespace 'none'"):
        acme.add_user(records.User("bob", "acme", "none"))
    with pytest.raises(errors.NotFound):
        acme.tenant("none")
    for change in (acme.update_tenant, acme.update_namespace, acme.update_user):
        with pytest.raises(errors.NotFound):
            change("none", {"description": "x"})
    for remove in (acme.delete_tenant, acme.delete_namespace, lambda name: acme.delete_user(name, 1.0)):
        with pytest.raises(errors.NotFound):
            remove("none")


def test_changes_are_kept(acme: Store) -> None:
    assert acme.update_tenant("acme", {"description": "x"}) == acme.tenant("acme") == records.Tenant("acme", "x", 1.0)
    assert acme.update_namespace("lab", {"description": "x"}) == acme.namespace("lab") == records.Namespace("lab", "acme", "x", 2.0)
    changed = acme.update_user("ann", {"role": "viewer", "namespaces": ("lab", "acme"), "active": False, "updated_at": 5.0})
    assert changed == acme.user("ann")
    assert (changed.role, changed.namespaces, changed.active, changed.updated_at) == ("viewer", ("lab", "acme"), False, 5.0)


def test_a_tenant_with_something_in_it_stays_and_the_refusal_says_what(acme: Store) -> None:
    with pytest.raises(errors.Conflict, match="namespaces acme, lab; users ann, root"):
        acme.delete_tenant("acme")
    acme.add_tenant(records.Tenant("empty"))
    acme.delete_tenant("empty")
    assert [one.name for one in acme.tenants()] == ["acme"]


def test_a_namespace_with_something_in_it_stays_and_the_refusal_says_what(acme: Store) -> None:
    acme.create_endpoint(endpoint("ep-1", "demo-chat", "lab"), FIELDS, None, {})
    acme.add_model_version(records.ModelVersion("lab", "tiny", 0, "org/tiny"))
    acme.add_credential(records.Credential("lab", "secret", "hush"))
    with pytest.raises(errors.Conflict, match="endpoints demo-chat; models tiny; secrets and integrations hush; users at home there ann"):
        acme.delete_namespace("lab")
    acme.delete_endpoint("ep-1")
    acme.delete_model("lab", "tiny")
    acme.delete_credential("lab", "secret", "hush")
    acme.delete_user("ann", 9.0)
    acme.delete_namespace("lab")
    assert [one.name for one in acme.namespaces()] == ["acme"]


def test_a_user_that_is_deleted_loses_its_platform_keys_and_no_others(acme: Store) -> None:
    acme.add_key(key("k1", "ann"))
    acme.add_key(key("k2", "ann"))
    acme.add_key(dataclasses.replace(key("k3", "ann"), status="revoked"))
    acme.add_key(key("k4", "root"))
    acme.add_key(key("k5", "ann", "e"))
    assert [row.id for row in acme.delete_user("ann", 50.0)] == ["k1", "k2"]
    assert acme.user("ann") is None
    assert {row.id: row.status for row in acme.keys(namespace=None)} == {
        "k1": "revoked",
        "k2": "revoked",
        "k3": "revoked",
        "k4": "active",
        "k5": "active",
    }
    assert acme.key("k1").updated_at == 50.0
    assert [row.id for row in acme.keys(owner="ann (deleted)", kind="p")] == ["k1", "k2", "k3"]


def test_the_last_active_operator_stays_one(acme: Store) -> None:
    for change in ({"role": "admin"}, {"active": False}):
        with pytest.raises(errors.Conflict, match="last active operator"):
            acme.update_user("root", change)
    with pytest.raises(errors.Conflict, match="last active operator"):
        acme.delete_user("root", 1.0)
    acme.update_user("root", {"description": "still here"})
    acme.add_user(records.User("idle", "acme", "acme", role="operator", active=False))
    with pytest.raises(errors.Conflict):
        acme.delete_user("root", 1.0)
    acme.update_user("idle", {"active": True})
    acme.delete_user("root", 1.0)
    assert [one.name for one in acme.users()] == ["ann", "idle"]


def test_a_refused_change_changes_nothing(acme: Store) -> None:
    acme.add_key(key("k1", "root"))
    before = (acme.changes(), acme.users(), acme.keys())
    with pytest.raises(errors.Conflict):
        acme.delete_user("root", 1.0)
    assert (acme.changes(), acme.users(), acme.keys()) == before


def test_what_was_a_deleted_users_is_not_a_new_ones_of_his_name(acme: Store) -> None:
    made = acme.create_endpoint(endpoint(namespace="lab", created_by="ann"), FIELDS, None, {})
    others = acme.create_endpoint(endpoint("ep-2", "others", "lab", created_by="root"), FIELDS, None, {})
    acme.add_key(key("k1", "ann"))
    acme.add_key(key("k2", "ann", "e"))
    acme.add_key(key("k3", "root"))
    acme.add_model_version(records.ModelVersion("lab", "chat", 0, "org/model"), owner="ann")
    acme.add_credential(records.Credential("lab", "secret", "hush", owner="ann"))
    acme.delete_user("ann", 9.0)
    acme.add_user(records.User("ann", "acme", "lab"))
    assert acme.keys(owner="ann") == [] and [row.id for row in acme.keys(owner="ann (deleted)")] == ["k1", "k2"]
    assert acme.endpoint("lab", made.name).created_by == acme.model("lab", "chat").owner == "ann (deleted)"
    assert acme.credential("lab", "secret", "hush").owner == "ann (deleted)"
    assert acme.endpoint("lab", others.name).created_by == acme.key("k3").owner == "root"
