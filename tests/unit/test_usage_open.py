"""What a killed server had open: counters in memory that outlives it, and the records that are made of them."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.platforms import ROOT

from cluster.messages import ReplicaIdentity, Usage
from deployments import usage, usage_open, usage_spool

HEADERS = [(b"x-request-id", b"rid-1"), (b"x-moorage-key-id", b"key-1"), (b"x-moorage-tenant", b"team")]
NOW = 1_772_625_600.123456


class Records(list):
    """A spool; `at_once` is called before a record is taken, as a death at that moment would find it."""

    at_once = staticmethod(lambda: None)

    def add(self, record, key):
        self.at_once()
        self.append(Usage(**json.loads(record)))


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def meter(tmp_path, records):
    return usage.Meter(records, wall=lambda: NOW, table=usage_open.Table(tmp_path, slots=2))


def left(folder):
    return [Usage(**json.loads(record)) for record in usage_open.left(folder, lambda: NOW + 60)]


def test_a_request_that_ran_is_left_as_failed_with_what_was_counted(tmp_path, meter):
    account = meter.open("/v1/completions", HEADERS)
    account.model, account.adapter = "m", "a"
    account.prompt_tokens += 11
    account.status = 200
    account.completion_tokens += 3
    account.completion_tokens += 2
    account.cached_tokens, account.images = 8, 1
    (found,) = left(tmp_path)
    assert (found.id, found.key, found.tenant, found.route) == ("rid-1", "key-1", "team", "/v1/completions")
    assert (found.model, found.adapter, found.outcome, found.status) == ("m", "a", "failed", 200)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.images) == (11, 5, 8, 1)
    assert (found.started_at, found.share_s) == (NOW, 0.0)
    assert found.ended_at == NOW + 60, "the clock has gone back since: not later than now"


def test_one_whose_answer_had_not_begun_has_no_status(tmp_path, meter):
    meter.open("/v1/completions", HEADERS)
    assert [(record.id, record.outcome, record.status) for record in left(tmp_path)] == [("rid-1", "failed", 0)]


@pytest.mark.parametrize(("status", "went", "outcome"), [(200, False, "finished"), (200, True, "aborted"), (0, False, "failed")])
def test_a_death_while_its_record_is_written_leaves_that_very_record(tmp_path, meter, records, status, went, outcome):
    account = meter.open("/v1/completions", HEADERS)
    account.prompt_tokens, account.status, account.whole, account.left = 4, status, bool(status), went
    seen = []
    records.at_once = lambda: seen.extend(left(tmp_path))
    account.release()
    assert [(one.id, one.outcome, one.prompt_tokens) for one in seen] == [(records[0].id, outcome, 4)]
    assert seen[0].started_at == records[0].started_at
    assert left(tmp_path) == []


def test_what_is_counted_after_the_end_is_nobody_elses(tmp_path, meter, records):
    first = meter.open("/a", HEADERS)
    first.completion_tokens = 5
    first.release()
    second = meter.open("/b", HEADERS)
    first.completion_tokens += 100
    first.model = "other"
    assert (second.completion_tokens, first.completion_tokens) == (0, 105)
    assert [(record.route, record.completion_tokens, record.model) for record in left(tmp_path)] == [("/b", 0, "")]
    assert records[0].completion_tokens == 5


def test_beyond_the_last_slot_requests_are_counted_all_the_same(tmp_path, meter, records):
    accounts = [meter.open(f"/{number}", []) for number in range(3)]
    for account in accounts:
        account.prompt_tokens += 7
    assert {record.route for record in left(tmp_path)} == {"/0", "/1"}
    for account in accounts:
        account.release()
    assert [record.prompt_tokens for record in records] == [7, 7, 7]
    assert meter.open("/3", []).slot is not None


def test_texts_that_do_not_fit_are_left_out_and_nothing_else(tmp_path, meter):
    account = meter.open("/" + "é" * 300, HEADERS)
    account.model, account.adapter = "é" * 300, "style"
    account.prompt_tokens = 3
    (found,) = left(tmp_path)
    assert (found.id, found.key, found.route, found.model, found.adapter) == ("rid-1", "key-1", "", "", "style")
    assert found.prompt_tokens == 3


def test_a_ruined_table_leaves_nothing(tmp_path, meter):
    meter.open("/a", HEADERS)
    file = tmp_path / usage_open.NAME
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'["rid-1"', b'["rid-1\xff'))
    assert left(tmp_path) == []
    file.write_bytes(os.urandom(5000))
    left(tmp_path)
    file.unlink()
    assert left(tmp_path) == []


SERVER = """
import os, sys
from pathlib import Path
from deployments import usage, usage_open, usage_spool
folder = Path(sys.argv[1])
meter = usage.Meter(usage_spool.Writer(folder), table=usage_open.Table(folder))
for number in range(10):
    account = meter.open("/v1/completions", [(b"x-request-id", b"done-%d" % number)])
    account.prompt_tokens, account.status, account.whole = 1, 200, True
    account.release()
running = meter.open("/v1/completions", [(b"x-request-id", b"running")])
running.status = 200
while True:
    running.completion_tokens += 1
    os.write(1, b".")
"""


def test_kill_9_in_the_middle_of_counting_is_one_event_off_at_most(tmp_path):
    spool = usage_spool.create(tmp_path / "usage", ReplicaIdentity("team--echo--r1", "replica-1"))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(spool.folder)], cwd=ROOT, stdout=subprocess.PIPE)
    seen = len(server.stdout.read(1000))
    server.send_signal(signal.SIGKILL)
    seen += len(server.stdout.read())
    server.wait()
    server.stdout.close()
    spool.salvage()
    spool.salvage()
    told = []
    while (batch := spool.next()) is not None:
        told += batch.records
        spool.acknowledge(batch)
    assert [record.id for record in told] == [*(f"done-{number}" for number in range(10)), "running"]
    assert 0 <= told[-1].completion_tokens - seen <= 1
    assert not (spool.folder / usage_open.NAME).exists()
    spool.close()
