"""What every store promises to threads that write at once: none wins twice, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from support.store_rows import FIELDS, endpoint, event, key, kinds

from cluster import errors, records
from cluster.store import Store
from cluster.store.base import EVENTS_KEPT


def _at_once(number: int, act: Callable[[int], object]) -> list[object]:
    """What each of `number` threads that start together returned or raised."""
    barrier, results = threading.Barrier(number), [None] * number

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = act(index)  # type: ignore[call-overload]
        except errors.MoorageError as exc:
            results[index] = exc  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(results)


def test_of_twenty_that_create_one_name_at_once_exactly_one_wins(store: Store) -> None:
    results = _at_once(
        20, lambda index: store.create_endpoint(endpoint(f"ep-{index}"), FIELDS, key(f"key-{index}", f"ep-{index}"), {"A": "x"})
    )
    [winner] = [one for one in results if isinstance(one, records.Endpoint)]
    assert sum(isinstance(one, errors.AlreadyExists) for one in results) == 19
    assert store.endpoints() == [winner]
    assert winner.target == 1
    assert store.keys() == store.keys(endpoint_id=winner.id) and len(store.keys()) == 1


def test_of_twenty_that_update_one_generation_at_once_exactly_one_wins(store: Store, created: records.Endpoint) -> None:
    results = _at_once(20, lambda index: store.update_endpoint("ep-1", {"restarts": index}, expected=1, fields={"by": index}))
    [winner] = [one for one in results if isinstance(one, records.Endpoint)]
    assert sum(isinstance(one, errors.StaleGeneration) for one in results) == 19
    assert store.endpoints() == [winner]
    assert (winner.generation, winner.target) == (2, 2)
    assert store.revisions("ep-1")[-1].fields == {"by": winner.restarts}


def test_no_update_of_twenty_at_once_is_lost_and_no_number_given_twice(store: Store, created: records.Endpoint) -> None:
    results = _at_once(20, lambda index: store.update_endpoint("ep-1", {}, fields={"by": index}, events=[event(f"u{index}")]))
    assert sorted(one.target for one in results if isinstance(one, records.Endpoint)) == list(range(2, 22))
    newest = store.endpoint("acme", "demo-chat")
    assert (newest.generation, newest.target) == (21, 21)
    assert len(store.events("ep-1")) == 21


def test_creating_updating_and_deleting_one_name_at_once_ends_in_order(store: Store) -> None:
    def live(index: int) -> int:
        outcomes = 0
        for turn in range(5):
            identity = f"ep-{index}-{turn}"
            try:
                store.create_endpoint(endpoint(identity), FIELDS, None, {}, [event(endpoint_id=identity)])
                store.update_endpoint(identity, {}, fields=FIELDS, events=[event("updated", identity)])
                store.add_events([event("more", identity)])
                store.delete_endpoint(identity)
                outcomes += 1
            except errors.AlreadyExists:
                continue
        return outcomes

    done = [one for one in _at_once(8, live) if isinstance(one, int)]
    assert len(done) == 8 and sum(done) >= 1
    assert store.endpoints() == [] and store.all_revisions() == []
    assert store.create_endpoint(endpoint("last"), FIELDS, None, {}).target == 2 * sum(done) + 1


def test_who_follows_the_events_while_eight_write_misses_none(store: Store, created: records.Endpoint) -> None:
    done, last = threading.Event(), 0
    seen: list[str] = []

    def follow() -> None:
        nonlocal last
        while True:
            finished = done.is_set()
            fresh = store.events("ep-1", records.EventsWanted(after=last), limit=EVENTS_KEPT)
            seen.extend(kinds(fresh))
            last = fresh[-1].id if fresh else last
            if finished:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    _at_once(8, lambda index: [store.add_events([event(f"{index} {number}")]) for number in range(10)])
    done.set()
    follower.join()
    assert sorted(seen) == sorted(["created", *(f"{index} {number}" for index in range(8) for number in range(10))])
