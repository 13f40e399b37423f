"""Answers counted from lines of the access log, and servers' work from HAProxy's `show stat`."""

import json

from cluster import histograms, messages
from gateway import activity, runtime
from gateway.answers import AnswerCounts


def line(endpoint="acme/chat-one", status=200, server="r1", active=120, path="/v1/chat/completions", **more):
    """As HAProxy's log-format writes it."""
    row = {"time": 1, "id": "x", "path": path, "endpoint": endpoint, "key": "k", "status": status, "code": ""}
    row |= {"bytes_in": 1, "ms": {"request": 0, "queue": 0, "connect": 0, "response": 3, "active": active}, "end": "--"}
    return json.dumps({**row, "server": server or "-", "slow": "-", **more}, separators=(",", ":")).replace("/", "\\/").encode()


def counts(known=("acme/chat-one", "acme/several")):
    return AnswerCounts(lambda path: path in known)


def taken(counted):
    return {(row.endpoint, row.replica, row.status): row for row in counted.take()}


def test_answers_are_counted_by_endpoint_replica_and_status_with_how_long_they_took():
    counted = counts()
    counted.see(b"\n".join([line(), line(active=2400), line(status=500), line(status=429, server="", active=0)]))
    found = taken(counted)
    assert {kind: row.count for kind, row in found.items()} == {
        ("acme/chat-one", "r1", 200): 2,
        ("acme/chat-one", "r1", 500): 1,
        ("acme/chat-one", "", 429): 1,
    }
    good = found["acme/chat-one", "r1", 200]
    assert good.seconds == {histograms.step(0.12): 1, histograms.step(2.4): 1} and good.seconds_sum == 2.52
    assert found["acme/chat-one", "", 429].seconds == {}
    assert counted.take() == ()


def test_a_client_that_left_before_an_answer_counts_as_status_0_and_a_websocket_has_no_length():
    counted = counts()
    counted.see(b"\n".join([line(status=-1), line(status=101, active=9_000_000)]))
    found = taken(counted)
    assert found["acme/chat-one", "r1", 0].count == 1
    assert found["acme/chat-one", "r1", 101].seconds == {}


def test_members_count_for_their_endpoint():
    counted = counts()
    counted.see(b"\n".join([line("acme/several:one", server="a"), line("acme/several:two", server="b")]))
    assert {kind: row.count for kind, row in taken(counted).items()} == {("acme/several", "a", 200): 1, ("acme/several", "b", 200): 1}


def test_lines_of_no_known_endpoint_and_lines_that_are_none_count_nothing():
    counted = counts()
    forged = line("-", 404, "", path='/x","endpoint":"acme/chat-one","status":200')
    counted.see(b"\n".join([forged, line("acme/made-up"), b"", b"{", b'{"endpoint":"acme/chat-one","status":200', line(active="x")]))
    assert counted.take() == ()


def test_what_was_not_delivered_is_counted_again():
    counted = counts()
    counted.see(line())
    lost = counted.take()
    counted.see(b"\n".join([line(), line(status=400)]))
    counted.give_back(lost)
    found = taken(counted)
    assert found["acme/chat-one", "r1", 200].count == 2 and found["acme/chat-one", "r1", 400].count == 1
    assert found["acme/chat-one", "r1", 200].seconds_sum == 0.24


STAT = """# pxname,svname,qcur,qmax,scur,smax,slim
edge,FRONTEND,,,9,9,
manage,serve,0,0,3,5,
s00001,r1,0,0,2,5,64
s00001,r2,0,0,0,5,64
s00002,r3,0,0,4,5,64
"""


def test_servers_work_is_summed_over_the_workers_of_a_reload_by_endpoint():
    seen = activity.Activity()
    now, old = runtime.parse_stat(STAT), runtime.parse_stat("# pxname,svname,scur\ns00001,r1,5\n")
    assert now == {"s00001": {"r1": 2, "r2": 0}, "s00002": {"r3": 4}}
    seen.see_servers([now, old], {"acme/several:one": "s00001", "acme/several:two": "s00002"})
    assert seen.running == {"acme/several": {"r1": 7, "r3": 4}}
    seen.see_servers([now], {"acme/one": "s00001"})
    assert seen.running == {"acme/one": {"r1": 2}}


def test_an_empty_report_says_nothing_of_answers():
    assert messages.Activity("edge", 1.0).answers == () and messages.Activity("edge", 1.0).running == {}
