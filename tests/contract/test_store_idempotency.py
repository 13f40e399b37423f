"""What every store promises of the answers it remembers for idempotency keys."""

from __future__ import annotations

import dataclasses
import threading

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


def test_a_transaction_inside_another_is_part_of_it(store: Store) -> None:
    with store.together():
        with store.together():
            store.add_namespace("inner")
        store.add_namespace("outer")
    assert [one.name for one in store.namespaces()] == ["inner", "outer"]

    def undone() -> None:
        with store.together():
            with store.together():
                store.add_namespace("lost")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    assert [one.name for one in store.namespaces()] == ["inner", "outer"]


def test_what_is_to_be_told_is_told_when_it_can_be_read_by_others(store: Store) -> None:
    told: list[list[str]] = []

    def tell() -> None:
        reader = threading.Thread(target=lambda: told.append([one.name for one in store.namespaces()]))
        reader.start()
        reader.join(10)

    with store.together():
        store.add_namespace("acme")
        store.afterwards(tell)
        assert told == []
    assert told == [["acme"]]
    store.afterwards(tell)
    assert len(told) == 2


def test_nothing_is_told_of_what_was_undone(store: Store) -> None:
    told: list[int] = []

    def undone() -> None:
        with store.together():
            store.afterwards(lambda: told.append(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    with store.together():
        pass
    assert told == []
