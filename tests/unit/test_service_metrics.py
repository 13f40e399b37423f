"""What the manager counts of endpoints: sums that never fall, windows, bounds, and what replicas use."""

import threading

import pytest

from cluster import messages, service_metrics
from cluster.service_metrics import ServiceMetrics

PATH = "acme/chat"


class Clock:
    now = 10_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counted(clock):
    return ServiceMetrics(clock)


def answers(status=200, count=1, replica="r1", seconds=0.0, endpoint=PATH):
    return messages.Answers(endpoint, replica, status, count, {40: count} if seconds else {}, seconds)


def activity(*rows, gateway="edge", **fields):
    return messages.Activity(gateway, 1.0, answers=rows, **fields)


def usage(**fields):
    return messages.Usage(**{"id": "x", "total_s": 1.0, "first_token_s": 0.1, "prompt_tokens": 10, "completion_tokens": 5, **fields})


def test_answers_add_up_by_replica_and_status(counted):
    counted.note_activity(activity(answers(count=3, seconds=1.5), answers(500, replica="r2")))
    counted.note_activity(activity(answers(count=2, seconds=1.0), answers(429, replica="")))
    totals = counted.totals(PATH)
    assert totals.replicas == {"r1": {200: 5}, "r2": {500: 1}, "": {429: 1}}
    assert totals.all.statuses == {200: 5, 500: 1, 429: 1}
    assert totals.all.latency.count == 5 and totals.all.latency.total == 2.5
    assert counted.totals("acme/other").all.statuses == {}


def test_a_websocket_has_tokens_and_no_durations(counted):
    counted.note(PATH, "r1", [usage(status=101, total_s=3600.0)])
    everything = counted.totals(PATH).all
    assert everything.engine.count == everything.first_token.count == 0
    assert everything.tokens["completion"] == 5


def test_usage_becomes_tokens_and_durations(counted):
    counted.note(PATH, "r1", [usage(cached_tokens=4), usage(outcome="aborted", first_token_s=0.0, completion_tokens=0)])
    counted.note(
        PATH, "r2", [usage(outcome="failed", total_s=9.0, first_token_s=0.0, prompt_tokens=0, completion_tokens=0), usage(images=2)]
    )
    everything = counted.totals(PATH).all
    assert everything.tokens == {"prompt": 30, "completion": 10, "cached": 4, "images": 2}
    assert everything.engine.count == 3 and everything.first_token.count == 2


def test_a_copy_that_was_handed_out_does_not_change(counted):
    counted.note_activity(activity(answers()))
    before = counted.totals(PATH)
    counted.note_activity(activity(answers()))
    assert before.all.statuses == {200: 1} and before.replicas["r1"] == {200: 1}


def test_a_window_has_what_ended_in_its_minutes_and_at_most_an_hour(counted, clock):
    counted.note_activity(activity(answers(status=400)))
    clock.now += 600
    counted.note_activity(activity(answers(status=200)))
    found, since = counted.window(PATH, clock.now - 300)
    assert found.statuses == {200: 1} and since <= clock.now - 300 < since + 60
    assert counted.window(PATH, clock.now - 3000)[0].statuses == {200: 1, 400: 1}
    clock.now += 3600
    counted.note_activity(activity(answers(status=500)))
    found, since = counted.window(PATH, 0.0)
    assert found.statuses == {500: 1} and clock.now - since <= 3600
    assert counted.totals(PATH).all.statuses == {200: 1, 400: 1, 500: 1}


def test_a_window_that_begins_in_the_future_is_the_present_minute(counted, clock):
    counted.note_activity(activity(answers()))
    assert counted.window(PATH, clock.now + 10_000)[0].statuses == {200: 1}


def test_requests_that_no_replica_works_on_are_pending(counted, clock):
    counted.note_activity(activity(gateway="one", active={PATH: 5}, running={PATH: {"r1": 2, "r2": 1}}))
    counted.note_activity(activity(gateway="two", active={PATH: 2}, running={PATH: {"r1": 2}}))
    totals = counted.totals(PATH)
    assert (totals.running, totals.pending, totals.at_replica) == (5, 2, {"r1": 4, "r2": 1})
    clock.now += 10
    counted.note_activity(activity(gateway="two"))
    clock.now += 10
    assert counted.totals(PATH).running == 0


def test_replicas_that_have_gone_are_forgotten_before_those_that_answer(counted):
    for number in range(service_metrics.REPLICAS_KEPT + 20):
        counted.note_activity(activity(answers(replica=f"r{number}"), answers(replica="stays"), answers(401, replica="")))
    replicas = counted.totals(PATH).replicas
    assert len(replicas) == service_metrics.REPLICAS_KEPT and {"stays", ""} <= set(replicas) and "r0" not in replicas
    assert counted.totals(PATH).all.statuses.total() == 3 * (service_metrics.REPLICAS_KEPT + 20)


def test_what_a_replica_uses_is_forgotten_when_it_falls_silent(counted, clock):
    counted.note_hardware(PATH, "r1", messages.HardwareUse(at=5.0, memory_rss=7))
    assert counted.totals(PATH).hardware["r1"].memory_rss == 7
    clock.now += service_metrics.HARDWARE_SILENT_S + 1
    assert counted.totals(PATH).hardware == {}


def test_a_deleted_endpoints_numbers_go_and_its_namesake_begins_at_zero(counted):
    counted.note_activity(activity(answers(), answers(endpoint="acme/stays")))
    counted.keep({"acme/stays"})
    assert counted.totals(PATH).all.statuses == {} and counted.totals("acme/stays").all.statuses == {200: 1}


def test_nothing_is_lost_when_many_count_at_once_while_others_look(counted):
    def count():
        for _ in range(300):
            counted.note_activity(activity(answers(seconds=0.1)))
            counted.note(PATH, "r1", [usage()])

    def look():
        before = 0
        while before < 1200:
            now = counted.totals(PATH).all.statuses[200]
            assert now >= before
            before = now
            counted.window(PATH, 0.0)

    threads = [threading.Thread(target=work) for work in (count, count, count, count, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everything = counted.totals(PATH).all
    assert everything.statuses[200] == 1200 and everything.latency.count == 1200 and everything.tokens["prompt"] == 12_000
