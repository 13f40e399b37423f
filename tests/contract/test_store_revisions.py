"""What every store promises of revisions: their numbers, and when they were live or failed."""

from __future__ import annotations

from support.store_rows import FIELDS, endpoint

from cluster import records
from cluster.store import Store


def test_revision_numbers_of_a_deleted_endpoint_are_not_used_again(store: Store, created: records.Endpoint) -> None:
    store.update_endpoint("ep-1", {}, fields=FIELDS)
    store.delete_endpoint("ep-1")
    again = store.create_endpoint(endpoint("ep-2"), FIELDS, None, {})
    assert again.target == 3
    assert [one.number for one in store.revisions("ep-2")] == [3]
    assert store.create_endpoint(endpoint("ep-3", namespace="zeta"), FIELDS, None, {}).target == 1


def test_all_revisions_are_those_that_serve_or_are_wanted(store: Store, created: records.Endpoint) -> None:
    store.create_endpoint(endpoint("ep-0", "other"), FIELDS, None, {})
    for _ in range(3):
        store.update_endpoint("ep-1", {}, fields=FIELDS)
    store.note_endpoint("ep-1", {"serving": 2})
    assert [(one.endpoint_id, one.number) for one in store.all_revisions()] == [("ep-0", 1), ("ep-1", 2), ("ep-1", 4)]
    assert [one.number for one in store.revisions("ep-1")] == [1, 2, 3, 4]


def test_a_revision_keeps_the_first_time_it_was_live(store: Store, created: records.Endpoint) -> None:
    store.mark_revision("ep-1", 1, live_at=5.0)
    store.mark_revision("ep-1", 1, live_at=6.0)
    assert store.revisions("ep-1")[0].live_at == 5.0


def test_a_failure_is_recorded_with_its_reason_until_it_is_cleared(store: Store, created: records.Endpoint) -> None:
    store.mark_revision("ep-1", 1, failed_at=5.0, reason="OutOfMemory", message="needs 90 GiB")
    store.mark_revision("ep-1", 1, live_at=6.0)
    [failed] = store.revisions("ep-1")
    assert (failed.live_at, failed.failed_at, failed.reason, failed.message) == (6.0, 5.0, "OutOfMemory", "needs 90 GiB")
    store.mark_revision("ep-1", 1, clear=True)
    [retried] = store.revisions("ep-1")
    assert (retried.live_at, retried.failed_at, retried.reason, retried.message) == (6.0, None, "", "")
    store.mark_revision("ep-1", 1, failed_at=7.0, reason="Again", message="", clear=True)
    [again] = store.revisions("ep-1")
    assert (again.failed_at, again.reason) == (7.0, "Again")


def test_marking_an_unknown_revision_does_nothing(store: Store, created: records.Endpoint) -> None:
    before = store.all_revisions()
    store.mark_revision("ep-1", 2, live_at=1.0)
    store.mark_revision("gone", 1, failed_at=1.0)
    assert store.all_revisions() == before
