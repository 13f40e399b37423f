"""Lines of the access log in files by the hour: whatever is told twice, and whenever the manager dies, each is there once."""

import json
import stat

import pytest
from support.access_lines import line, lines

from cluster import messages, request_log

NOW = 1_800_000_000.0
HOUR = 3600.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    return request_log.RequestLog(tmp_path / "requests", days=30, megabytes=100, clock=clock)


def told(data, first=0, segment="s1"):
    return messages.RequestLines("edge", segment, first, data)


def content(log):
    return b"".join(path.read_bytes() for path in request_log.files(log.folder))


def test_chunks_are_appended_as_they_are(log):
    one, two = lines("a", "b"), lines("c")
    assert log.append(told(one)) == len(one)
    assert log.append(told(two, len(one))) == len(one + two)
    assert content(log) == one + two


def test_a_chunk_that_is_told_twice_is_stored_once(log):
    one, two = lines("a"), lines("b")
    log.append(told(one))
    assert log.append(told(one)) == len(one)
    assert log.append(told(one + two)) == len(one + two)
    assert content(log) == one + two


def test_the_question_without_data_tells_how_much_has_arrived(log):
    assert log.append(told(b"")) == 0
    log.append(told(lines("a")))
    assert log.append(told(b"")) == len(lines("a"))
    assert log.append(told(b"", segment="another")) == 0


def test_another_manager_goes_on_where_one_ended(log, clock):
    log.append(told(lines("a")))
    again = request_log.RequestLog(log.folder, 30, 100, clock)
    assert again.append(told(lines("a"))) == len(lines("a"))
    assert content(log) == lines("a")


def test_what_was_written_before_a_crash_but_never_noted_is_not_there_twice(log):
    log.append(told(lines("a")))
    with request_log.files(log.folder)[-1].open("ab") as file:
        file.write(lines("b", "c")[:-7])  # the manager died here, in the middle of a line
    log.append(told(lines("b", "c"), len(lines("a"))))
    assert content(log) == lines("a") + lines("b", "c")


def test_what_is_noted_after_a_crash_is_how_long_the_file_is(log):
    log.append(told(lines("a")))
    with request_log.files(log.folder)[0].open("ab") as file:
        file.write(lines("b", "c", "d"))
    log.append(told(lines("b"), len(lines("a"))))
    assert json.loads((log.folder / "state.json").read_text())["end"] == len(content(log)) == len(lines("a", "b"))


def test_an_hour_that_was_begun_before_a_crash_but_never_noted_is_not_there_twice(log, clock):
    log.append(told(lines("a")))
    before = (log.folder / "state.json").read_text()
    clock.now += HOUR
    log.append(told(lines("b"), len(lines("a"))))
    (log.folder / "state.json").write_text(before)
    assert log.append(told(lines("b"), len(lines("a")))) == len(lines("a") + lines("b"))
    assert content(log) == lines("a") + lines("b")


def test_without_its_state_it_begins_a_new_file(log):
    log.append(told(lines("a")))
    (log.folder / "state.json").write_text("{")
    log.append(told(lines("b"), segment="s2"))
    assert [path.read_bytes() for path in request_log.files(log.folder)] == [lines("a"), lines("b")]


def test_each_hour_and_each_full_file_begins_a_new_one(log, clock, monkeypatch):
    monkeypatch.setattr(request_log, "FILE_BYTES", 10)
    log.append(told(lines("a")))
    log.append(told(lines("b"), len(lines("a"))))
    clock.now += HOUR
    log.append(told(lines("c"), 2 * len(lines("a"))))
    assert [path.name[11:] for path in request_log.files(log.folder)] == ["08.000.log", "08.001.log", "09.000.log"]


def test_a_clock_that_is_set_back_changes_no_order(log, clock):
    log.append(told(lines("a")))
    clock.now -= 5 * HOUR
    log.append(told(lines("b"), len(lines("a"))))
    assert content(log) == lines("a") + lines("b")


def test_files_older_than_the_time_to_keep_go_and_others_stay(log, clock):
    log.append(told(line("old", NOW)))
    clock.now += 10 * HOUR
    log.append(told(line("new", clock.now), segment="s2"))
    clock.now = NOW + 30 * 24 * HOUR + HOUR
    log.sweep()
    assert content(log) == line("new", NOW + 10 * HOUR)
    clock.now += 10 * HOUR
    log.sweep()
    assert list(log.folder.glob("*.log")) == list(log.folder.glob("*.range")) == []
    assert log.append(told(b"", segment="s2")) == len(line("new", NOW))  # and it is not sent again


def test_the_oldest_files_beyond_the_bound_go(tmp_path, clock):
    log = request_log.RequestLog(tmp_path, days=30, megabytes=1, clock=clock)
    for number in range(5):
        log.append(told(line(f"id-{number}", clock.now, path="x" * 400_000), segment=f"s{number}"))
        clock.now += HOUR
    log.sweep()
    assert len(request_log.files(tmp_path)) == 2
    assert b"id-4" in content(log)


def test_a_files_range_has_the_times_of_its_lines(log):
    log.append(told(lines("a", "b", start=500.0)))
    log.append(told(lines("late", start=100.0), segment="s2"))
    assert request_log.range_of(request_log.files(log.folder)[0]) == (100.0, 501.0)


def test_nobody_else_can_read_it(log):
    log.append(told(lines("a")))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()}
    assert (modes, stat.S_IMODE(log.folder.stat().st_mode)) == ({0o600}, 0o700)


def test_few_segments_are_remembered(log, monkeypatch):
    monkeypatch.setattr(request_log, "SEGMENTS", 2)
    for name in ("s1", "s2", "s3"):
        log.append(told(lines("a"), segment=name))
    assert list(json.loads((log.folder / "state.json").read_text())["segments"]) == ["s2", "s3"]
