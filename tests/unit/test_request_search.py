"""Requests are found in the log's files: newest first, by every filter, page by page, and never with more work than is allowed."""

import pytest
from support.access_lines import line, lines

from cluster import errors, request_search
from cluster.request_search import Scope, Wanted


@pytest.fixture
def write(tmp_path):
    """Writes a file of the log, with its range."""

    def written(hour, data, times=None):
        path = tmp_path / f"2026-01-31T{hour:02}.000.log"
        path.write_bytes(data)
        if times is not None:
            path.with_suffix(".range").write_text(f"{times[0]} {times[1]}")
        return path

    return written


@pytest.fixture
def search(tmp_path):
    return request_search.RequestSearch(tmp_path)


def ids(found):
    return [request.id for request in found.requests]


def test_the_newest_come_first_over_all_files(search, write):
    write(10, lines("a", "b"))
    write(11, lines("c", "d"))
    found = search.search(Wanted(), 10)
    assert (ids(found), found.cursor) == (["d", "c", "b", "a"], None)


def test_pages_have_every_request_once_while_others_come(search, write):
    write(10, lines("a", "b"))
    path = write(11, lines("c", "d", "e"))
    first = search.search(Wanted(), 2)
    path.write_bytes(path.read_bytes() + lines("f"))
    second = search.search(Wanted(), 2, first.cursor)
    third = search.search(Wanted(), 2, second.cursor)
    assert [ids(page) for page in (first, second, third)] == [["e", "d"], ["c", "b"], ["a"]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(id="two"), ["two"]),
        (Wanted(endpoint="acme/other"), ["two"]),
        (Wanted(endpoint="acme/oth"), []),
        (Wanted(endpoint="acme/members"), ["eight"]),
        (Wanted(key="k9"), ["three"]),
        (Wanted(status="429"), ["four"]),
        (Wanted(status="42"), []),
        (Wanted(status="4xx"), ["four"]),
        (Wanted(status="5xx"), ["five"]),
        (Wanted(code="queue_full"), ["four"]),
        (Wanted(replica="r7"), ["six"]),
        (Wanted(outcome="client_left"), ["seven"]),
        (Wanted(slower=2.0), ["six"]),
        (Wanted(since=1006.0, until=1007.0), ["eight", "seven"]),
        (Wanted(text="embeddings"), ["two"]),
        (Wanted(text='"'), ["odd"]),
        (Wanted(endpoint="acme/chat", status="5xx", key="k1"), ["five"]),
    ],
)
def test_filters(search, write, wanted, found):
    rows = [
        line("one", 1000),
        line("two", 1001, endpoint="acme/other", path="/v1/embeddings"),
        line("three", 1002, key="k9"),
        line("four", 1003, status=429, code="queue_full", end="LR"),
        line("five", 1004, status=503),
        line("six", 1005, server="r7", ms={"active": 2500}),
        line("seven", 1006, end="CD"),
        line("eight", 1007, endpoint="acme/members:big"),
        line("odd", 1008, path='/a"b'),
    ]
    write(10, b"".join(rows))
    assert ids(search.search(wanted, 10)) == found


def test_a_tenant_finds_what_is_its_endpoints_or_its_keys(search, write):
    rows = [
        line("own", endpoint="acme/chat", tenant="acme"),
        line("shared", endpoint="globex/open", tenant="acme"),
        line("foreign", endpoint="globex/open", tenant="globex"),
        line("refused", endpoint="acme/chat", tenant="-", key="-", status=401),
        line("nowhere", endpoint="-", tenant="-"),
    ]
    write(10, b"".join(rows))
    assert ids(search.search(Wanted(Scope({"acme": 0.0}, {"acme": 0.0})), 10)) == ["refused", "shared", "own"]
    assert ids(search.search(Wanted(Scope({"acme": 0.0})), 10)) == ["refused", "own"]
    assert len(ids(search.search(Wanted(), 10))) == 5


def test_requests_for_the_management_api_are_left_out_unless_asked_for(search, write):
    write(10, line("a") + line("b", path="/manage/v2/keys") + line("c", path="/console/") + line("d", path="/health"))
    assert ids(search.search(Wanted(), 10)) == ["a"]
    assert ids(search.search(Wanted(management=True), 10)) == ["d", "c", "b", "a"]


def test_lines_that_were_cut_off_are_passed_by(search, write):
    write(10, lines("a") + line("b")[:50] + b"\n" + lines("c") + line("d")[:70])
    assert ids(search.search(Wanted(), 10)) == ["c", "a"]


def test_lines_are_whole_wherever_a_block_ends(search, write, monkeypatch):
    write(10, lines(*(f"id-{number}" for number in range(50))))
    for size in (600, 601, 777, 1024):
        monkeypatch.setattr(request_search, "BLOCK", size)
        assert ids(search.search(Wanted(), 100)) == [f"id-{number}" for number in reversed(range(50))]


def test_a_call_that_has_worked_enough_says_where_to_go_on(search, write, monkeypatch):
    monkeypatch.setattr(request_search, "BLOCK", 1000)
    monkeypatch.setattr(request_search, "WORK_BYTES", 3000)
    write(10, line("wanted", key="k9") + lines(*(f"id-{number}" for number in range(50))))
    cursor, calls, seen = None, 0, []
    while True:
        found = search.search(Wanted(key="k9"), 10, cursor)
        seen += ids(found)
        calls, cursor = calls + 1, found.cursor
        if cursor is None:
            break
        assert found.looked_to is not None
    assert (seen, calls > 3) == (["wanted"], True)


def test_a_call_ends_in_time(tmp_path, write, monkeypatch):
    monkeypatch.setattr(request_search, "BLOCK", 1000)
    write(10, lines(*(f"id-{number}" for number in range(50))))
    ticks = iter(range(1000))
    found = request_search.RequestSearch(tmp_path, clock=lambda: float(next(ticks))).search(Wanted(key="none"), 10)
    assert found.cursor is not None


def test_files_of_other_times_are_not_opened(search, write):
    write(9, b"no line of these files is read\n", (0, 900))
    write(10, lines("a", start=1000), (1000, 1000))
    write(11, b"no line of these files is read\n", (1200, 1300))
    found = search.search(Wanted(since=950, until=1100), 10)
    assert (ids(found), found.looked_to) == (["a"], 1000.0)


def test_it_stops_where_lines_are_too_old(search, write, monkeypatch):
    monkeypatch.setattr(request_search, "BLOCK", 1000)
    write(10, lines(*(f"id-{number}" for number in range(500)), start=0))
    found = search.search(Wanted(since=498), 10)
    assert (ids(found), found.looked_to > 400) == (["id-499", "id-498"], True)


@pytest.mark.parametrize("cursor", ["", "x", "../../etc/passwd:1", "2026-01-31T10.000.log:-1", "2026-01-31T10.000.log"])
def test_a_cursor_that_was_none_is_refused(search, write, cursor):
    write(10, lines("a"))
    with pytest.raises(errors.InvalidRequest):
        search.search(Wanted(), 10, cursor)


def test_a_file_that_went_meanwhile_has_no_lines(write):
    gone = write(10, lines("a"))
    gone.unlink()
    assert list(request_search.blocks(gone)) == []
