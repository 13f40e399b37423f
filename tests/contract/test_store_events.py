"""What every store promises of events: their order, their ids, how many are kept and what they may hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from support.store_rows import FIELDS, endpoint, event, kinds

from cluster import records
from cluster.store import Store
from cluster.store.base import EVENTS_KEPT


def test_events_come_ascending_and_the_newest_when_limited(store: Store, created: records.Endpoint) -> None:
    store.add_events([event(f"e{number}", at=float(number), level="warning" if number % 2 else "info") for number in range(10)])
    told = store.events("ep-1")
    assert kinds(told) == ["created", *(f"e{number}" for number in range(10))]
    assert [one.id for one in told] == sorted({one.id for one in told})
    assert kinds(store.events("ep-1", limit=3)) == ["e7", "e8", "e9"]
    assert kinds(store.events("ep-1", records.EventsWanted(after=told[-3].id))) == ["e8", "e9"]
    assert kinds(store.events("ep-1", records.EventsWanted(since=8.0))) == ["e8", "e9"]
    assert kinds(store.events("ep-1", records.EventsWanted(level="warning"), limit=2)) == ["e7", "e9"]
    assert kinds(store.events("ep-1", records.EventsWanted(after=told[-1].id))) == []
    assert store.events("ep-1", limit=0) == []


def test_an_event_is_read_back_as_it_was_given(store: Store, created: records.Endpoint) -> None:
    given = event("phase", message="loading", level="error", revision=1, replica="r-1", reason="Slow", data={"bytes": [1, 2]})
    store.add_events([given])
    told = store.events("ep-1")[-1]
    assert dataclasses.replace(told, id=0) == given


def test_only_the_newest_events_of_each_endpoint_are_kept(store: Store, created: records.Endpoint) -> None:
    store.create_endpoint(endpoint("ep-2", "other"), FIELDS, None, {}, [event(endpoint_id="ep-2")])
    store.add_events([event(f"e{number}") for number in range(EVENTS_KEPT + 5)])
    kept = store.events("ep-1", limit=EVENTS_KEPT * 2)
    assert len(kept) == EVENTS_KEPT
    assert (kept[0].kind, kept[-1].kind) == ("e5", f"e{EVENTS_KEPT + 4}")
    store.add_events([event("one more")])
    kept = store.events("ep-1", limit=EVENTS_KEPT * 2)
    assert (len(kept), kept[0].kind, kept[-1].kind) == (EVENTS_KEPT, "e6", "one more")
    assert len(store.events("ep-2")) == 1


def test_event_ids_are_not_given_again_after_a_deletion(store: Store, created: records.Endpoint) -> None:
    last = store.events("ep-1")[-1].id
    store.delete_endpoint("ep-1")
    store.create_endpoint(endpoint("ep-2"), FIELDS, None, {}, [event("new", "ep-2")])
    assert kinds(store.events("ep-2", records.EventsWanted(after=last))) == ["new"]


def test_events_of_endpoints_that_are_gone_are_dropped(store: Store, created: records.Endpoint) -> None:
    store.add_events([event("lost", "gone"), event("kept"), event("lost", "gone too")])
    store.add_events([])
    assert kinds(store.events("ep-1")) == ["created", "kept"]
    assert store.events("gone") == []


def test_an_engines_odd_output_does_not_stop_an_event(store: Store, created: records.Endpoint) -> None:
    odd = "NUL \x00, a lone surrogate \ud800, \u00e9 \u4e2d \U0001f600"
    store.add_events([event("odd", message=odd, reason=odd, data={"tail": odd})])
    store.mark_revision("ep-1", 1, failed_at=1.0, reason="Crash", message=odd)
    for message in (store.events("ep-1")[-1].message, store.revisions("ep-1")[0].message):
        assert message.startswith("NUL ") and message.endswith("\u00e9 \u4e2d \U0001f600")
    assert store.events("ep-1")[-1].data == {"tail": odd}


def test_events_are_wanted_by_what_they_are_and_when(store: Store, created: records.Endpoint) -> None:
    rows = [
        event("phase", at=10.0, message="Loading 100% of it", replica="r-1"),
        event("phase", at=11.0, message="warming_up", replica="r-2"),
        event("live", at=12.0, message="Live"),
    ]
    store.add_events(rows)
    told = store.events("ep-1")

    def wanted(**fields: Any) -> list[str]:
        return [one.message for one in store.events("ep-1", records.EventsWanted(**fields)) if one.kind != "created"]

    assert wanted(kind="phase") == ["Loading 100% of it", "warming_up"]
    assert wanted(replica="r-2") == ["warming_up"]
    assert wanted(until=11.0) == ["Loading 100% of it", "warming_up"]
    assert wanted(before=told[-1].id, after=told[1].id) == ["warming_up"]
    assert wanted(text="LOADING") == ["Loading 100% of it"]
    assert wanted(text="100%") == ["Loading 100% of it"]
    assert wanted(text="g_u") == ["warming_up"]
    assert wanted(text="g%u") == []
    newest = store.events("ep-1", records.EventsWanted(before=told[-1].id), limit=1)
    assert [one.message for one in newest] == ["warming_up"]
