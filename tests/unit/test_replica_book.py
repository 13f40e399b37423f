"""Which revision a replica was is known after it has gone, for as long as the request log tells of it."""

import pytest

from cluster import replica_book
from gateway import program

DAY = 86400.0


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def book(tmp_path, clock):
    return replica_book.ReplicaBook(tmp_path / "requests" / "replicas.jsonl", 30, clock)


def test_a_replica_is_found_by_its_server_after_a_restart(tmp_path, clock):
    book(tmp_path, clock).note("x#1", "big:x#1", "ep-1", 7)
    found = book(tmp_path, clock).find("x-1")
    assert (found.label, found.revision, found.endpoint_id) == ("big:x#1", 7, "ep-1")
    assert book(tmp_path, clock).find("another") is None


def test_the_edge_calls_it_the_same():
    for identity in ("abc123", "Replica#x1:y", "a b/c"):
        assert replica_book.server_name(identity) == program.server_name(identity)


def test_repeating_writes_once_a_day(tmp_path, clock):
    kept = book(tmp_path, clock)
    for _ in range(5):
        kept.note("r1", "r1", "ep-1", 1)
    file = tmp_path / "requests" / "replicas.jsonl"
    assert len(file.read_text().splitlines()) == 1
    clock.now += 2 * DAY
    kept.note("r1", "r1", "ep-1", 1)
    assert len(file.read_text().splitlines()) == 2
    kept.shorten()
    assert len(file.read_text().splitlines()) == 1


def test_replicas_that_were_not_heard_of_for_long_are_forgotten(tmp_path, clock):
    kept = book(tmp_path, clock)
    kept.note("gone", "gone", "ep-1", 1)
    kept.note("lives", "lives", "ep-1", 2)
    clock.now += 20 * DAY
    kept.note("lives", "lives", "ep-1", 2)
    clock.now += 20 * DAY
    again = book(tmp_path, clock)
    assert again.find("gone") is None
    assert again.find("lives").revision == 2


def test_a_line_that_was_cut_off_hides_no_other(tmp_path, clock):
    book(tmp_path, clock).note("r1", "r1", "ep-1", 1)
    with (tmp_path / "requests" / "replicas.jsonl").open("a") as file:
        file.write('{"id": "r2", "la')
    assert book(tmp_path, clock).find("r1") is not None
