"""What every store promises of the model registry and of measurements."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import pytest

from cluster import errors, records
from cluster.store import Store


def version(number: int = 0, name: str = "chat", namespace: str = "acme", **fields: object) -> records.ModelVersion:
    return records.ModelVersion(namespace, name, number, "org/model", "c0ffee", created_at=2.0, created_by="ann", **fields)  # type: ignore[arg-type]


def test_versions_are_numbered_from_one_and_may_be_given(store: Store) -> None:
    made = [store.add_model_version(version(number), "ann", "first said") for number in (0, 0, 7, 0)]
    assert [one.version for one in made] == [1, 2, 7, 8]
    assert store.model("acme", "chat") == records.Model("acme", "chat", "first said", "ann", 8, 2.0, 2.0)
    assert store.model_versions("acme", "chat") == made


def test_a_version_is_stored_once(store: Store) -> None:
    store.add_model_version(version(3))
    with pytest.raises(errors.AlreadyExists, match="version 3"):
        store.add_model_version(version(3, description="other"))
    assert store.model_versions("acme") == [version(3)]


def test_models_of_other_namespaces_are_others(store: Store) -> None:
    for place in ({"name": "b"}, {"name": "a"}, {"name": "a", "namespace": "other"}):
        store.add_model_version(version(**place))  # type: ignore[arg-type]
    assert [one.name for one in store.models("acme")] == ["a", "b"]
    assert [(one.name, one.version) for one in store.model_versions("acme")] == [("a", 1), ("b", 1)]
    with pytest.raises(errors.NotFound):
        store.model("acme", "c")


def test_a_models_description_changes_and_its_versions_stay(store: Store) -> None:
    store.add_model_version(version())
    assert store.update_model("acme", "chat", {"description": "new", "updated_at": 5.0}).description == "new"
    assert store.model("acme", "chat").updated_at == 5.0
    with pytest.raises(errors.NotFound):
        store.update_model("acme", "none", {"description": "new"})


def test_the_number_of_a_deleted_version_is_not_given_again(store: Store) -> None:
    for _ in range(2):
        store.add_model_version(version())
    store.delete_model("acme", "chat", 2)
    assert store.add_model_version(version()).version == 3
    with pytest.raises(errors.NotFound, match="no version 2"):
        store.delete_model("acme", "chat", 2)


def test_a_deleted_model_is_gone_with_its_versions(store: Store) -> None:
    store.add_model_version(version())
    store.delete_model("acme", "chat")
    assert store.models("acme") == [] and store.model_versions("acme") == []
    with pytest.raises(errors.NotFound):
        store.delete_model("acme", "chat")


def test_versions_added_at_once_get_different_numbers(store: Store) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.add_model_version(version()).version, range(12)))
    assert sorted(found) == list(range(1, 13))


def test_the_newest_measurement_of_a_model_on_an_instance_with_settings_is_kept(store: Store) -> None:
    first = records.Measurement("org/model", "", "nvidia-h200", "x1", "{}", {"cacheTokens": 10}, 1.0)
    second = dataclasses.replace(first, data={"cacheTokens": 20}, at=2.0)
    others = [dataclasses.replace(first, instance_size="x2"), dataclasses.replace(first, settings="other")]
    for one in (first, second, *others):
        store.put_measurement(one)
    assert store.measurements("org/model", "", "{}") == [second, others[0]]
    assert store.measurements("org/model", "v2", "{}") == []
