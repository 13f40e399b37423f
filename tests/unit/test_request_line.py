"""A line of the access log becomes a request, with the way it ended in words."""

import pytest
from support.access_lines import line

from cluster import messages, request_line


def parsed(**changes):
    return request_line.parse(line(**changes))


def test_a_line_becomes_a_request():
    found = parsed(
        at=12.5, endpoint="acme/chat:big", ms={"request": 1, "queue": 20, "connect": 3, "response": 100, "active": 900}, tries="+1"
    )
    assert (found.id, found.at, found.client, found.key, found.tenant) == ("id-1", 12.5, "10.1.2.3", "k1", "acme")
    assert (found.endpoint, found.member, found.server, found.tries) == ("acme/chat", "big", "r1", 1)
    assert (found.path, found.status, found.code, found.outcome) == ("/endpoints/acme/chat/v1/chat/completions", 200, "", "finished")
    assert (found.queue_s, found.first_byte_s, found.total_s) == (0.02, 0.124, 0.9)


REFUSED = {"ms": {"queue": -1, "connect": -1, "response": -1}, "server": "-", "to": "<NOSRV>"}


@pytest.mark.parametrize(
    ("end", "status", "outcome"),
    [
        ("--", 200, "finished"), ("--", 400, "failed"), ("--", 101, "finished"), ("LR", 401, "refused"), ("LR", 200, "finished"),
        ("PR", 400, "refused"), ("CD", 200, "client_left"), ("CH", 400, "client_left"), ("CQ", 503, "client_left"),
        ("cD", 200, "client_timed_out"), ("cR", 408, "client_timed_out"), ("SD", 200, "replica_broke"), ("SH", 502, "replica_broke"),
        ("SC", 503, "unreachable"), ("sC", 503, "unreachable"), ("sH", 504, "timed_out"), ("sD", 200, "timed_out"),
        ("sQ", 503, "queue_timed_out"), ("KD", 200, "cut"), ("DD", 200, "cut"), ("RC", 500, "edge_failed"), ("", 200, "finished"),
    ],
)  # fmt: skip
def test_how_it_ended(end, status, outcome):
    found = parsed(end=end, status=status)
    assert found.outcome == outcome
    assert request_line.OUTCOMES[outcome]


def test_a_refused_request_has_its_code_and_no_replica():
    found = parsed(status=429, code="rate_limit_exceeded", end="LR", **REFUSED)
    assert (found.status, found.code, found.server) == (429, "rate_limit_exceeded", "")
    assert (found.queue_s, found.first_byte_s) == (None, None)


def test_a_request_whose_client_left_before_the_answer_has_no_status():
    found = parsed(status=400, code="invalid_request", end="CH", server="-", to="r1", ms={"response": -1})
    assert (found.status, found.code, found.outcome, found.server) == (None, "", "client_left", "r1")


def test_times_that_haproxy_counts_below_zero_are_none():
    assert parsed(ms={"queue": 300, "connect": -299, "response": 10, "active": 310}).first_byte_s == 0.31


@pytest.mark.parametrize("server", ["gateway", "serve", "<NOSRV>", "-"])
def test_what_is_no_replica_is_none(server):
    assert parsed(server="-", to=server).server == ""


def test_a_line_of_an_older_version_is_read():
    old = (
        b'{"time":1000,"id":"x","client":"c","method":"<BADREQ>","path":"-","endpoint":"-","key":"-","status":400,"code":"-",'
        b'"bytes_in":0,"bytes_out":0,"ms":{"request":-1,"queue":-1,"connect":-1,"response":-1,"active":0},"end":"PR","server":"-","slow":"-"}'
    )
    found = request_line.parse(old)
    assert (found.method, found.path, found.endpoint, found.tenant, found.status, found.outcome) == ("", "", "", "", 400, "refused")


@pytest.mark.parametrize("odd", [b"", b"{", b"[]", b"null", b'{"time":1}', line()[:100]])
def test_what_is_no_line_is_none(odd):
    assert request_line.parse(odd) is None


def test_an_answer_that_the_engine_broke_off_did_not_finish():
    usage = messages.Usage("id-1", outcome="failed")
    assert request_line.with_engine("finished", usage) == "engine_failed"
    assert request_line.with_engine("client_left", usage) == "client_left"
    assert request_line.with_engine("finished", None) == "finished"


def test_a_websocket_that_the_engine_saw_aborted_was_left_by_its_client():
    usage = messages.Usage("id-1", outcome="aborted", status=101)
    assert request_line.with_engine("finished", usage) == "client_left"
    assert request_line.with_engine("cut", usage) == "cut"
    assert request_line.with_engine("finished", messages.Usage("id-1", outcome="aborted", status=200)) == "finished"
