"""Accounts of requests, the clock that shares time among them, and the middleware that opens and closes them."""

import asyncio
import dataclasses
import json
import random

import pytest

from cluster.messages import Usage
from deployments import usage
from deployments.metering import Metered

HEADERS = [(b"x-request-id", b"rid-1"), (b"x-moorage-key-id", b"key-1"), (b"x-moorage-tenant", b"team")]
START = {"type": "http.response.start", "status": 200, "headers": []}


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Records(list):
    """A spool that one can look into."""

    def __init__(self):
        self.came = asyncio.Event()

    def add(self, record, key):
        self.came.set()
        self.append(Usage(**json.loads(record)))


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def meter(records, clock):
    numbers = iter(range(1000))
    return usage.Meter(records, clock, lambda: 1e9 + clock.now, lambda: f"made-{next(numbers)}")


def test_two_requests_at_once_share_the_time_and_a_lonely_one_has_all_of_it(clock):
    shared = usage.Clock(clock)
    first = shared.enter()
    clock.now += 2
    second = shared.enter()
    clock.now += 6
    assert shared.leave(first) == 2 + 3
    clock.now += 1
    assert shared.leave(second) == 3 + 1


def test_shares_of_all_requests_add_up_to_the_time_in_which_any_ran(clock):
    shared, numbers, running, total, busy = usage.Clock(clock), random.Random(7), [], 0.0, 0.0
    for _ in range(2000):
        step = numbers.expovariate(3)
        clock.now += step
        busy += step if running else 0
        if running and numbers.random() < 0.5:
            total += shared.leave(running.pop(numbers.randrange(len(running))))
        else:
            running.append(shared.enter())
    total += sum(shared.leave(entered) for entered in running)
    assert total == pytest.approx(busy)


async def drive(meter, app, *, method="POST", kind="http", headers=HEADERS, received=(), reads=False, path="/v1/completions"):
    """Sends one request through the middleware: what was sent on, by which time."""
    messages, sent = list(received) or [{"type": "http.request", "body": b""}], []

    async def receive():
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": headers}
    await Metered(app, meter, reads=reads)({**scope, "method": method} if kind == "http" else scope, receive, send)
    return sent


def answer(*parts, status=200, work=lambda account: None):
    """An engine that answers so, and counts meanwhile."""

    async def app(_scope, receive, send):
        await receive()
        work(usage.ACCOUNT.get())
        await send({**START, "status": status})
        for number, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts) - 1})

    return app


async def test_a_finished_request_becomes_one_record_with_all_that_was_counted(meter, records, clock):
    def work(account):
        clock.now += 2
        account.prompt_tokens, account.completion_tokens, account.cached_tokens, account.images = 11, 5, 8, 1
        account.model, account.adapter, account.queue_s, account.first_token_s = "m", "a", 0.25, 0.5

    await drive(meter, answer(b"a", b"b", work=work))
    assert records == [
        Usage(
            id="rid-1",
            key="key-1",
            tenant="team",
            route="/v1/completions",
            model="m",
            adapter="a",
            outcome="finished",
            status=200,
            started_at=1e9 + 100,
            ended_at=1e9 + 102,
            prompt_tokens=11,
            completion_tokens=5,
            cached_tokens=8,
            images=1,
            queue_s=0.25,
            first_token_s=0.5,
            total_s=2.0,
            share_s=2.0,
        )
    ]


async def test_the_record_is_written_before_the_last_byte_of_the_answer_is_out(meter, records):
    seen = []

    async def app(_scope, _receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    async def send(message):
        seen.append((message.get("body"), len(records)))

    await Metered(app, meter)({"type": "http", "method": "POST", "path": "/", "headers": []}, None, send)
    assert seen == [(None, 0), (b"a", 0), (b"b", 1)]


@pytest.mark.parametrize(("status", "outcome"), [(200, "finished"), (399, "finished"), (400, "failed"), (503, "failed")])
async def test_an_error_status_is_a_failed_request(meter, records, status, outcome):
    await drive(meter, answer(b"x", status=status))
    assert [(record.outcome, record.status) for record in records] == [(outcome, status)]


async def test_a_client_that_leaves_in_the_middle_of_a_stream_makes_an_aborted_request_with_what_was_counted(meter, records):
    async def app(_scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        usage.ACCOUNT.get().completion_tokens += 3
        assert (await receive())["type"] == "http.disconnect"

    await drive(meter, app, received=[{"type": "http.disconnect"}])
    assert [(record.outcome, record.status, record.completion_tokens) for record in records] == [("aborted", 200, 3)]


async def test_a_disconnect_after_the_whole_answer_is_no_abort(meter, records):
    async def app(_scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"a"})
        await receive()

    await drive(meter, app, received=[{"type": "http.disconnect"}])
    assert [record.outcome for record in records] == ["finished"]


async def test_an_answer_that_breaks_off_is_failed(meter, records):
    async def app(_scope, _receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    await drive(meter, app)
    assert [(record.outcome, record.status, record.id) for record in records] == [("failed", 200, "rid-1")]


async def test_an_exception_is_a_failed_request_and_passes_on(meter, records):
    async def app(*_):
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await drive(meter, app)
    assert [record.outcome for record in records] == ["failed"]


async def test_a_request_that_is_cancelled_is_aborted(meter, records):
    started = asyncio.Event()

    async def app(*_):
        started.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(drive(meter, app))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [record.outcome for record in records] == ["aborted"]


async def test_an_attempt_without_any_answer_has_failed_without_a_status(meter, records):
    async def app(*_):
        return

    await drive(meter, app)
    await drive(meter, answer(b"x"))
    assert [(record.id, record.outcome, record.status) for record in records] == [("rid-1", "failed", 0), ("rid-1", "finished", 200)]


async def test_a_request_without_an_id_gets_one_and_has_no_key(meter, records):
    await drive(meter, answer(b"x"), headers=[])
    assert [(record.id, record.key, record.tenant) for record in records] == [("made-0", "", "")]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_requests_that_only_read_are_recorded_for_users_programs_alone(meter, records, method):
    await drive(meter, answer(b"x"), method=method)
    assert records == []
    await drive(meter, answer(b"x"), method=method, reads=True)
    assert len(records) == 1


async def test_what_clients_choose_is_cut_and_made_fit_for_any_database(meter, records):
    def work(account):
        account.model = "m\ud800\0" + "x" * 1000

    await drive(meter, answer(b"x", work=work), path="/\0" + "p" * 5000)
    assert records[0].model == "m?" + "x" * (usage.LONGEST - 3)
    assert records[0].route == "/" + "p" * (usage.LONGEST - 2)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(1000, "finished"), (1001, "finished"), (1006, "aborted")],
)
async def test_a_websocket_is_one_request_that_ends_with_its_closing_code(meter, records, code, outcome):
    async def app(_scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    await drive(meter, app, kind="websocket", received=[{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": code}])
    assert [(record.outcome, record.status) for record in records] == [(outcome, 101)]


async def test_a_websocket_that_the_server_closes_with_an_error_is_failed(meter, records):
    async def app(_scope, _receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1011})

    await drive(meter, app, kind="websocket")
    assert [(record.outcome, record.status) for record in records] == [("failed", 101)]


async def test_a_websocket_that_is_refused_with_an_answer_has_its_status(meter, records):
    async def app(_scope, _receive, send):
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no socket here"})

    await drive(meter, app, kind="websocket")
    assert [(record.outcome, record.status) for record in records] == [("failed", 404)]


async def test_what_goes_on_after_the_answer_is_counted_before_the_account_is_closed(meter, records, clock):
    held = []

    def work(account):
        account.hold()
        held.append(account)

    await drive(meter, answer(b"x", work=work))
    assert records == []
    clock.now += 7
    held[0].completion_tokens = 4
    held[0].release()
    assert [(record.completion_tokens, record.total_s, record.share_s) for record in records] == [(4, 7.0, 7.0)]


@dataclasses.dataclass(eq=False)
class Part:
    account: usage.Account
    tokens: int

    def count(self):
        self.account.completion_tokens += self.tokens


def with_part(account, tokens=3):
    account.hold()
    account.parts.add(Part(account, tokens))


async def test_a_part_that_never_ends_is_counted_when_the_answer_has_long_ended(meter, records, monkeypatch):
    monkeypatch.setattr(usage, "LEFT_BEHIND_S", 0.01)
    await drive(meter, answer(b"x", work=with_part))
    assert records == []
    await records.came.wait()
    assert [(record.completion_tokens, record.outcome) for record in records] == [(3, "finished")]


async def test_settling_records_what_runs_as_cut_off_with_what_it_has_used_and_only_once(meter, records):
    account = meter.open("/v1/completions", HEADERS)
    account.status = 200
    with_part(account)
    meter.settle()
    account.release()
    account.release()
    assert [(record.outcome, record.completion_tokens) for record in records] == [("aborted", 3)]


async def test_requests_of_nobody_have_no_account(meter):
    assert usage.ACCOUNT.get() is None
    await drive(meter, answer(b"x"))
    assert usage.ACCOUNT.get() is None


def test_a_prompt_that_many_parts_share_is_new_once(meter):
    account = meter.open("/", [])
    assert [account.first("a"), account.first("a"), account.first("b")] == [True, False, True]
