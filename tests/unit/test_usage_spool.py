"""Usage records on disk: what a crash at any byte leaves, who may read it, and what a full disk does."""

import errno
import os
import stat
import threading

import pytest

from cluster.messages import ReplicaIdentity, Usage
from deployments import usage_spool
from deployments.locking import locked
from deployments.usage_spool import Reader, Writer

IDENTITY = ReplicaIdentity("team--echo--r1", "default#x/Y", "n1", "127.0.0.1", "large")


def line(number):
    return b'{"id":"r%d","prompt_tokens":%d}' % (number, number)


def drained(reader):
    """The ids of everything there is, acknowledged."""
    found = []
    while (batch := reader.next()) is not None:
        found += [record.id for record in batch.records]
        reader.acknowledge(batch)
    return found


@pytest.fixture
def home(tmp_path):
    return tmp_path / "usage"


@pytest.fixture
def spool(home):
    made = usage_spool.create(home, IDENTITY)
    yield made
    made.close()


@pytest.fixture
def writer(spool):
    made = Writer(spool.folder)
    yield made
    made.close()


def test_what_is_written_is_read_in_order_and_once(spool, writer):
    for number in range(3):
        writer.add(line(number), "k")
    assert spool.next().records[2] == Usage("r2", prompt_tokens=2)
    assert drained(spool) == ["r0", "r1", "r2"]
    writer.add(line(3), "k")
    assert drained(spool) == ["r3"]
    assert spool.next() is None


def test_spool_is_its_users_alone_and_knows_whose_records_it_has(spool, writer):
    writer.add(line(1), "k")
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in spool.folder.glob("*.jsonl")} == {0}
    assert spool.identity == IDENTITY


def test_a_reader_that_starts_again_goes_on_behind_what_was_acknowledged(spool, writer):
    writer.add(line(0), "k")
    spool.acknowledge(spool.next())
    writer.add(line(1), "k")
    spool.next()
    assert drained(Reader(spool.folder, -1)) == ["r1"]


def test_a_crash_at_any_byte_costs_at_most_the_record_that_was_being_written(spool, writer):
    for number in range(3):
        writer.add(line(number), "k")
    segment = next(spool.folder.glob("*.jsonl"))
    whole = segment.read_bytes()
    for cut in range(len(whole) + 1):
        segment.write_bytes(whole[:cut])
        expected = [f"r{number}" for number in range(whole[:cut].count(b"\n"))]
        (spool.folder / "delivered").unlink(missing_ok=True)
        assert drained(Reader(spool.folder, -1)) == expected, cut


def test_a_crash_at_any_byte_of_the_note_of_what_was_delivered_loses_nothing(spool, writer):
    for number in range(3):
        writer.add(line(number), "k")
    batch = spool.next()
    spool.acknowledge(batch)
    writer.add(line(3), "k")
    note = (spool.folder / "delivered").read_bytes()
    for cut in range(len(note)):
        (spool.folder / "delivered").write_bytes(note[:cut])
        assert drained(Reader(spool.folder, -1))[-1:] == ["r3"], cut
        (spool.folder / "delivered").write_bytes(note)


def test_segments_are_deleted_when_they_are_delivered(spool):
    writer = Writer(spool.folder, segment_bytes=100)
    for number in range(20):
        writer.add(line(number), "k")
    assert len(list(spool.folder.glob("*.jsonl"))) > 3
    assert drained(spool) == [f"r{number}" for number in range(20)]
    assert len(list(spool.folder.glob("*.jsonl"))) == 1
    writer.add(line(20), "k")
    assert drained(spool) == ["r20"]
    assert drained(Reader(spool.folder, -1)) == []
    writer.close()


def test_a_large_backlog_comes_in_batches(spool, writer):
    for number in range(1200):
        writer.add(line(number), "k")
    sizes = []
    while (batch := spool.next()) is not None:
        sizes.append(len(batch.records))
        spool.acknowledge(batch)
    assert sizes == [500, 500, 200]


def test_damaged_lines_are_counted_and_skipped(spool, writer):
    for text in (line(0), b"", b"{half", b"[]", b'{"key":"without an id"}', b'{"id":"r1","of_a_later_version":1}'):
        writer.add(text, "k")
    batch = spool.next()
    assert [record.id for record in batch.records] == ["r0", "r1"]
    assert batch.damaged == 3


class Disk:
    """os.write as on a disk that has so many bytes of room."""

    def __init__(self, monkeypatch):
        self.room = 1 << 30
        self._write = os.write
        monkeypatch.setattr(usage_spool.os, "write", self)

    def __call__(self, fd, data):
        if data == b".":
            return self._write(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", range(2 * len(line(0)) + 3))
def test_records_of_a_full_disk_wait_in_memory_and_follow_when_there_is_room(spool, monkeypatch, room):
    said = []
    writer = Writer(spool.folder, say=said.append)
    disk = Disk(monkeypatch)
    disk.room = room
    for number in range(4):
        writer.add(line(number), "k")
    assert len(said) == 1 and "No space left" in said[0]
    disk.room = 1 << 30
    writer.add(line(4), "k")
    assert list(dict.fromkeys(drained(spool))) == ["r0", "r1", "r2", "r3", "r4"]
    writer.close()


def test_what_can_be_neither_written_nor_held_is_lost_and_said(spool, monkeypatch):
    monkeypatch.setattr(usage_spool, "MOST_HELD", 3)
    said = []
    writer = Writer(spool.folder, say=said.append)
    disk = Disk(monkeypatch)
    disk.room = 0
    for number in range(8):
        writer.add(line(number), "k")
    disk.room = 1 << 30
    writer.add(line(8), "k")
    assert drained(spool) == ["r0", "r1", "r2"]
    assert any("4 usage records are lost" in text for text in said)
    writer.close()


def test_disk_use_is_bounded_while_the_manager_is_away_and_goes_on_when_it_is_back(spool):
    writer = Writer(spool.folder, segment_bytes=100, most_segments=3, say=lambda _: None)
    for number in range(30):
        writer.add(line(number), "k")
    assert sum(path.stat().st_size for path in spool.folder.glob("*.jsonl")) < 3 * 140
    found = drained(spool)
    for number in range(30, 35):
        writer.add(line(number), "k")
        found += drained(spool)
    assert found == [f"r{number}" for number in range(35)]
    writer.close()


def test_a_spool_is_adopted_only_when_server_and_supervisor_are_dead(home, spool):
    writer = Writer(spool.folder)
    writer.add(line(1), "k")
    assert usage_spool.adopt(home) == []
    spool.close()
    assert usage_spool.adopt(home) == []
    writer.close()
    (adopted,) = usage_spool.adopt(home)
    assert usage_spool.adopt(home) == [], "one adopts, not two"
    assert adopted.identity == IDENTITY
    assert drained(adopted) == ["r1"]
    adopted.remove()
    assert list(home.iterdir()) == []


def test_a_folder_that_is_being_made_is_not_adopted(home, spool):
    spool.close()
    found = []
    adopting = threading.Thread(target=lambda: found.extend(usage_spool.adopt(home)))
    with locked(home):
        adopting.start()
        adopting.join(0.1)
        assert adopting.is_alive()
    adopting.join(5)
    assert [adopted.folder for adopted in found] == [spool.folder]


def test_two_spools_of_one_replica_id_are_two_folders(home, spool):
    other = usage_spool.create(home, IDENTITY)
    assert other.folder != spool.folder
    other.remove()


def test_there_is_nothing_to_adopt_where_there_is_no_folder(tmp_path):
    assert usage_spool.adopt(tmp_path / "missing") == []


def test_a_writer_without_a_folder_says_so_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Writer(tmp_path / "missing")


def test_a_server_that_starts_again_writes_a_segment_of_its_own(spool):
    for number in range(2):
        writer = Writer(spool.folder)
        writer.add(line(number), "k")
        writer.close()
    assert len(list(spool.folder.glob("*.jsonl"))) == 2
    assert drained(spool) == ["r0", "r1"]
