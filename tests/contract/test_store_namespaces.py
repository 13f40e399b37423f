"""What every store promises of namespaces."""

from __future__ import annotations

from cluster.store import Store


def test_namespaces_are_sorted_and_added_once(store: Store) -> None:
    for name in ("zeta", "acme", "zeta", "a-b"):
        store.add_namespace(name)
    assert [(one.name, one.tenant) for one in store.namespaces()] == [("a-b", "a-b"), ("acme", "acme"), ("zeta", "zeta")]
