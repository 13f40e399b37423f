"""Calendar windows in UTC."""

import datetime

import pytest

from cluster import windows


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("minute", "2026-03-01T12:34:56.789", "2026-03-01T12:34:00", "2026-03-01T12:35:00"),
        ("minute", "2026-03-01T12:34:00", "2026-03-01T12:34:00", "2026-03-01T12:35:00"),
        ("day", "2026-03-01T00:00:00", "2026-03-01", "2026-03-02"),
        ("day", "2026-12-31T23:59:59.999", "2026-12-31", "2027-01-01"),
        ("week", "2026-03-01T23:00:00", "2026-02-23", "2026-03-02"),  # a Sunday belongs to the Monday before
        ("week", "2026-03-02T00:00:00", "2026-03-02", "2026-03-09"),
        ("month", "2026-02-28T23:59:59", "2026-02-01", "2026-03-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-01T00:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2026-01-31T00:00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_a_window_begins_and_ends_where_its_calendar_says(kind, now, start, end):
    assert windows.start(kind, at(now)) == at(start)
    assert windows.end(kind, at(now)) == at(end)


def test_the_total_never_begins_anew():
    assert (windows.start("total", at("2026-03-01")), windows.end("total", at("2026-03-01"))) == (0.0, 0.0)


def test_a_span_is_divided_at_midnight():
    parts = windows.split(at("2026-02-28T23:59:30"), at("2026-03-02T00:00:10"))
    assert parts == [("2026-02-28", 30.0), ("2026-03-01", 86_400.0), ("2026-03-02", 10.0)]
    assert windows.split(5.0, 5.0) == []
