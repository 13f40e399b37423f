"""What every store promises of named secrets and integrations."""

from __future__ import annotations

import dataclasses

import pytest

from cluster import errors, records
from cluster.store import Store

HUB = records.Credential("acme", "integration", "hub", "huggingface", {"token": "sealed"}, "the team's", "ann", 1.0, 1.0)


def named(name: str, **fields: object) -> records.Credential:
    return dataclasses.replace(HUB, name=name, **fields)  # type: ignore[arg-type]


def test_what_was_added_is_found_by_namespace_shelf_and_name(store: Store) -> None:
    secret = records.Credential("acme", "secret", "hub", fields={"value": "sealed too"})
    for one in (HUB, named("a"), secret, named("hub", namespace="other")):
        store.add_credential(one)
    assert store.credential("acme", "integration", "hub") == HUB
    assert store.credential("acme", "secret", "hub") == secret
    assert store.credentials("acme") == [named("a"), HUB, secret]
    assert store.credentials("acme", "secret") == [secret]
    assert store.credentials("nobody") == []


def test_a_name_is_taken_once_on_its_shelf(store: Store) -> None:
    store.add_credential(HUB)
    with pytest.raises(errors.AlreadyExists, match="an integration 'hub'"):
        store.add_credential(named("hub", kind="s3"))
    assert store.credentials("acme") == [HUB]


def test_what_changes_is_replaced_and_the_rest_stays(store: Store) -> None:
    store.add_credential(HUB)
    changed = store.update_credential("acme", "integration", "hub", {"fields": {"token": "new"}, "updated_at": 2.0})
    assert changed == dataclasses.replace(HUB, fields={"token": "new"}, updated_at=2.0)
    assert store.credential("acme", "integration", "hub") == changed


@pytest.mark.parametrize("shelf", ["secret", "integration"])
def test_what_is_not_there_is_not_found(store: Store, shelf: str) -> None:
    store.add_credential(named("hub", namespace="other"))
    for call in (
        lambda: store.credential("acme", shelf, "hub"),
        lambda: store.update_credential("acme", shelf, "hub", {"description": "x"}),
        lambda: store.delete_credential("acme", shelf, "hub"),
    ):
        with pytest.raises(errors.NotFound, match=f"no {shelf} 'hub' in the namespace 'acme'"):
            call()


def test_what_was_deleted_is_gone_and_its_name_free(store: Store) -> None:
    store.add_credential(HUB)
    store.delete_credential("acme", "integration", "hub")
    assert store.credentials("acme") == []
    store.add_credential(HUB)


def test_values_do_not_show_when_a_row_is_printed() -> None:
    assert "sealed" not in repr(HUB)


def test_every_sealed_value_is_replaced_and_nothing_counts_as_changed(store: Store, created: records.Endpoint) -> None:
    store.add_credential(named("s3", fields={"a": "1", "b": "2"}))
    assert store.reseal(lambda value: f"new {value}") == 3
    assert store.secrets(created.id) == {"HF_TOKEN": "new sealed"}
    found = store.credential("acme", "integration", "s3")
    assert (found.fields, found.updated_at) == ({"a": "new 1", "b": "new 2"}, 1.0)
    assert store.endpoint("acme", "demo-chat").generation == created.generation


def test_a_value_that_cannot_be_resealed_leaves_all_as_they_were(store: Store, created: records.Endpoint) -> None:
    store.add_credential(named("s3", fields={"a": "1", "b": "2"}))

    def change(value: str) -> str:
        if value == "2":
            raise errors.Conflict
        return "new"

    with pytest.raises(errors.Conflict):
        store.reseal(change)
    assert store.secrets(created.id) == {"HF_TOKEN": "sealed"}
    assert store.credential("acme", "integration", "s3").fields == {"a": "1", "b": "2"}
