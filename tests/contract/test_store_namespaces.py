"""What every store promises of namespaces."""

from __future__ import annotations

from cluster.store import Store


def test_namespaces_are_sorted_and_added_once(store: Store) -> None:
    for name in ("zeta", "acme", "zeta", "a-b"):
        store.add_namespace(name)
    assert store.namespaces() == ["a-b", "acme", "zeta"]
