"""What every store promises of the answers it remembers for idempotency keys."""

from __future__ import annotations

import dataclasses

import pytest

from cluster import records
from cluster.store import Store


def test_the_first_answer_for_an_idempotency_key_stays(store: Store) -> None:
    first = records.Remembered("acme", "abc", "digest", 201, '{"a": 1}', 100.0)
    store.remember(first)
    store.remember(dataclasses.replace(first, body="second", created_at=101.0))
    store.remember(dataclasses.replace(first, scope="zeta", body="other"))
    assert store.remembered("acme", "abc") == first
    assert store.remembered("acme", "other") is None


def test_answers_older_than_a_day_are_pruned(store: Store) -> None:
    day = 24 * 3600.0
    for name, at in (("old", 0.0), ("newer", 10.0), ("newest", day + 5.0)):
        store.remember(records.Remembered("acme", name, "digest", 201, "{}", at))
    assert store.remembered("acme", "old") is None
    assert store.remembered("acme", "newer") is not None and store.remembered("acme", "newest") is not None


def test_what_is_done_together_is_kept_or_undone_as_a_whole(store: Store) -> None:
    answer = records.Remembered("acme", "abc", "digest", 200, "{}", 1.0)

    def both(then: type[Exception] | None) -> None:
        with store.together():
            store.add_namespace("acme")
            store.remember(answer)
            assert [one.name for one in store.namespaces()] == ["acme"] and store.remembered("acme", "abc") == answer
            if then is not None:
                raise then

    with pytest.raises(ZeroDivisionError):
        both(ZeroDivisionError)
    assert not store.namespaces() and store.remembered("acme", "abc") is None
    both(None)
    assert [one.name for one in store.namespaces()] == ["acme"] and store.remembered("acme", "abc") == answer
