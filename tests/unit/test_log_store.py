"""Lines of replicas' servers, kept and read back."""

import itertools

import pytest

from cluster import log_store, messages


@pytest.fixture
def store(tmp_path):
    return log_store.LogStore(tmp_path, pause=lambda seconds: None)


def lines(*texts, start=1.0, level="info"):
    return [messages.LogLine(start + number, level, text) for number, text in enumerate(texts)]


def texts(entries):
    return [entry.text for entry in entries]


def test_lines_of_several_replicas_come_in_order_of_time(store):
    store.append("a", "one", "r1", lines("first", "third", start=1.0))
    store.append("a", "one", "r2", lines("second", start=1.5))
    assert texts(store.read("a", "one")) == ["first", "second", "third"]
    assert texts(store.read("a", "one", replica="r2")) == ["second"]


def test_filters_by_level_time_text_and_count(store):
    store.append("a", "one", "r1", lines("x1", "x2", "y3"))
    store.append("a", "one", "r1", lines("bad", start=9.0, level="error"))
    assert texts(store.read("a", "one", level="warning")) == ["bad"]
    assert texts(store.read("a", "one", since=3.0)) == ["y3", "bad"]
    assert texts(store.read("a", "one", text="x")) == ["x1", "x2"]
    assert texts(store.read("a", "one", tail=2)) == ["y3", "bad"]


def test_another_endpoints_lines_are_not_shown_and_forgetting_leaves_them(store):
    store.append("a", "one", "r1", lines("mine"))
    store.append("a", "two", "r1", lines("theirs"))
    store.forget("a", "one")
    assert store.read("a", "one") == []
    assert texts(store.read("a", "two")) == ["theirs"]


def test_files_are_rotated_and_old_replicas_dropped(store, monkeypatch, tmp_path):
    monkeypatch.setattr(log_store, "FILE_BYTES", 200)
    for number in range(50):
        store.append("a", "one", "r1", lines(f"line {number}", start=number))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log*")) < 700
    assert texts(store.read("a", "one"))[-1] == "line 49"
    for number in range(60):
        store.append("a", "one", f"replica{number}", lines("x"))
    assert len(list(tmp_path.rglob("*.log*"))) <= 2 * log_store.REPLICAS_KEPT


def test_following_shows_each_line_once(store):
    store.append("a", "one", "r1", lines("one", "two"))
    following = store.follow("a", "one")
    assert texts(itertools.islice(following, 2)) == ["one", "two"]
    assert next(following) is None
    store.append("a", "one", "r1", lines("three", start=5.0))
    assert next(entry for entry in following if entry).text == "three"
    assert next(following) is None


def test_a_line_cut_off_in_the_middle_does_not_hide_the_others(store, tmp_path):
    store.append("a", "one", "r1", lines("whole"))
    with next(tmp_path.rglob("*.log")).open("a") as file:
        file.write('[2.0, "inf')
    assert texts(store.read("a", "one")) == ["whole"]
