"""Lines of replicas' servers, kept and read back."""

import asyncio
import contextlib
import os
import time

import pytest

from cluster import errors, log_store, messages
from cluster.log_store import Wanted

ALL = Wanted()


@pytest.fixture
def store(tmp_path):
    return log_store.LogStore(tmp_path, quiet_s=0.01)


def lines(*texts, start=1.0, level="info"):
    return [messages.LogLine(start + number, level, text) for number, text in enumerate(texts)]


def texts(entries):
    return [entry.text for entry in entries]


def test_lines_of_several_replicas_come_in_order_of_time(store):
    store.append("a", "one", "r1", lines("first", "third", start=1.0))
    store.append("a", "one", "r2", lines("second", start=1.5))
    assert texts(store.read("a", "one", ALL)) == ["first", "second", "third"]
    assert texts(store.read("a", "one", Wanted(replica="r2"))) == ["second"]


def test_filters_by_level_time_text_and_count(store):
    store.append("a", "one", "r1", lines("x1", "x2", "y3"))
    store.append("a", "one", "r1", lines("bad", start=9.0, level="error"))
    assert texts(store.read("a", "one", Wanted(level="warning"))) == ["bad"]
    assert texts(store.read("a", "one", Wanted(since=3.0))) == ["y3", "bad"]
    assert texts(store.read("a", "one", Wanted(text="x"))) == ["x1", "x2"]
    assert texts(store.read("a", "one", ALL, tail=2)) == ["y3", "bad"]


def test_another_endpoints_lines_are_not_shown_and_forgetting_leaves_them(store):
    store.append("a", "one", "r1", lines("mine"))
    store.append("a", "two", "r1", lines("theirs"))
    store.forget("a", "one")
    assert store.read("a", "one", ALL) == []
    assert texts(store.read("a", "two", ALL)) == ["theirs"]


def test_files_are_rotated_and_old_replicas_dropped(store, monkeypatch, tmp_path):
    monkeypatch.setattr(log_store, "FILE_BYTES", 200)
    for number in range(50):
        store.append("a", "one", "r1", lines(f"line {number}", start=number))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log*")) < 700
    assert texts(store.read("a", "one", ALL))[-1] == "line 49"
    for number in range(60):
        store.append("a", "one", f"replica{number}", lines("x"))
    assert len(list(tmp_path.rglob("*.log*"))) <= 2 * log_store.REPLICAS_KEPT


async def test_following_shows_what_was_and_each_new_line_once(store):
    store.append("a", "one", "r1", lines("one", "two", "three"))
    async with contextlib.aclosing(store.follow("a", "one", ALL, tail=2)) as following:
        assert [(await anext(following)).text for _ in range(2)] == ["two", "three"]
        # late lines of another replica are shown too, whatever their time; another endpoint's and unwanted ones are not
        await asyncio.to_thread(store.append, "a", "other", "r1", lines("not mine"))
        await asyncio.to_thread(store.append, "a", "one", "r2", lines("late", start=0.5))
        assert (await next_line(following)).text == "late"
        assert await anext(following) is None


async def test_following_filters_and_ends_when_the_endpoint_is_forgotten(store):
    store.append("a", "one", "r1", lines("before"))
    following = store.follow("a", "one", Wanted(level="error"))
    assert await anext(following) is None
    store.append("a", "one", "r1", lines("quiet"))
    store.append("a", "one", "r1", lines("loud", level="error"))
    assert (await next_line(following)).text == "loud"
    store.forget("a", "one")
    with pytest.raises(StopAsyncIteration):
        await next_line(following)


async def test_a_follower_that_leaves_is_not_written_to_any_more(store):
    store.append("a", "one", "r1", lines("x"))
    async with contextlib.aclosing(store.follow("a", "one", ALL)) as following:
        await anext(following)
    assert not store._followers


async def test_a_slow_follower_loses_old_lines_and_holds_up_nobody(store, monkeypatch):
    monkeypatch.setattr(log_store, "BEHIND", 3)
    store.append("a", "one", "r1", lines("first"))
    async with contextlib.aclosing(store.follow("a", "one", ALL)) as following:
        await anext(following)
        for number in range(10):
            store.append("a", "one", "r1", lines(f"line {number}"))
        assert (await next_line(following)).text == "line 7"


async def next_line(following):
    while (entry := await anext(following)) is None:
        pass
    return entry


def test_a_line_cut_off_in_the_middle_does_not_hide_the_others(store, tmp_path):
    store.append("a", "one", "r1", lines("whole"))
    with next(tmp_path.rglob("*.log")).open("a") as file:
        file.write('[2.0, "inf')
    assert texts(store.read("a", "one", ALL)) == ["whole"]


def test_lines_per_request_push_out_no_others(store, monkeypatch):
    monkeypatch.setattr(log_store, "FILE_BYTES", 200)
    store.append("a", "one", "r1", lines("the engine started"))
    for number in range(100):
        store.append("a", "one", "r1", lines(f"request {number}", start=10.0 + number, level="debug"))
    assert texts(store.read("a", "one", Wanted(level="info"))) == ["the engine started"]
    shown = store.read("a", "one", ALL)
    assert (shown[0].text, shown[-1].text) == ("the engine started", "request 99")
    assert {entry.replica for entry in shown} == {"r1"}


def test_lines_up_to_a_time(store):
    store.append("a", "one", "r1", lines("x1", "x2", "x3"))
    assert texts(store.read("a", "one", Wanted(since=2.0, until=2.5))) == ["x2"]


def test_pages_go_backwards_and_have_each_line_once_even_at_one_time(store):
    store.append("a", "one", "r1", [messages.LogLine(at, "info", f"{at:g}-{number}") for number, at in enumerate((1, 2, 2, 2, 2, 3))])
    seen, cursor = [], None
    while True:
        page, cursor = store.page("a", "one", ALL, tail=2, before=cursor)
        seen = texts(page) + seen
        if cursor is None:
            break
    assert seen == ["1-0", "2-1", "2-2", "2-3", "2-4", "3-5"]


def test_new_lines_do_not_move_the_pages_before(store):
    store.append("a", "one", "r1", lines("x1", "x2", "x3"))
    _, cursor = store.page("a", "one", ALL, tail=1, before=None)
    store.append("a", "one", "r1", lines("x4", start=9.0))
    assert texts(store.page("a", "one", ALL, tail=2, before=cursor)[0]) == ["x1", "x2"]


@pytest.mark.parametrize("cursor", ["", "x", "1", "1:-1", "nan:1", "1:2:3"])
def test_a_cursor_that_was_none_is_refused(store, cursor):
    with pytest.raises(errors.InvalidRequest):
        store.page("a", "one", ALL, tail=1, before=cursor)


def test_lines_that_are_too_old_are_deleted_and_others_stay(tmp_path):
    now = time.time()
    store = log_store.LogStore(tmp_path, days=2, clock=lambda: now)
    store.append("a", "one", "r1", lines("old", start=now - 3 * log_store.DAY_S))
    store.append("a", "one", "r1", lines("new", start=now))
    store.append("a", "one", "gone", lines("older", start=now - 9 * log_store.DAY_S))
    os.utime(next(tmp_path.rglob("gone.log")), (now - 9 * log_store.DAY_S,) * 2)
    store.sweep()
    assert texts(store.read("a", "one", ALL)) == ["new"]
    assert [path.name for path in tmp_path.rglob("*.log*")] == ["r1.log"]
    store.append("a", "one", "r1", lines("newer", start=now + 1))
    assert texts(store.read("a", "one", ALL)) == ["new", "newer"]
