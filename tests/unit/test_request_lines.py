"""One line of a server's output per request of the edge, with its id and how it ended."""

import pytest
from support.edges import until

from deployments import request_lines, server_log

ID = (b"x-request-id", b"id-1")


class Output:
    def __init__(self):
        self.writes = []

    def __call__(self, text):
        self.writes.append(text)

    async def lines(self):
        await until(lambda: self.writes)
        return "".join(self.writes).splitlines()


class App:
    def __init__(self, last=True, failure=None):
        self.last, self.failure = last, failure

    async def __call__(self, _scope, _receive, send):
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": not self.last})
        if self.failure:
            raise self.failure


async def call(application, *headers, kind="http"):
    async def nothing(_=None):
        return {}

    await application({"type": kind, "method": "POST", "path": "/v1/x", "headers": list(headers)}, nothing, nothing)


@pytest.fixture
def output():
    return Output()


def watched(app, output):
    ticks = iter((1.0, 1.25) * 100)
    return request_lines.RequestLines(app, output, clock=lambda: next(ticks))


@pytest.mark.parametrize(
    ("app", "outcome"), [(App(), "finished"), (App(last=False), "client left"), (App(last=False, failure=ConnectionError()), "failed")]
)
async def test_how_a_request_ended(app, outcome, output):
    try:
        await call(watched(app, output), ID)
    except ConnectionError:
        assert app.failure
    assert await output.lines() == [f"DEBUG moorage: request id-1 POST /v1/x 201 {outcome} in 0.250 s"]


async def test_many_requests_are_one_write(output):
    application = watched(App(), output)
    for _ in range(50):
        await call(application, ID)
    assert len(await output.lines()) == 50
    assert len(output.writes) == 1


async def test_what_is_not_from_the_edge_has_no_line(output):
    application = watched(App(), output)
    await call(application)
    await call(application, ID, kind="websocket")
    await call(application, ID)
    assert len(await output.lines()) == 1


async def test_the_line_is_of_the_level_debug(output):
    shipped = []

    async def ship(lines):
        shipped.extend(lines)

    await call(watched(App(), output), ID)
    log = server_log.ServerLog(ship)
    for line in await output.lines():
        log.add(line.encode())
    await log.flush()
    assert [(line.level, "id-1" in line.text) for line in shipped] == [("debug", True)]


async def test_it_neither_hides_what_a_server_said_last_nor_changes_the_level_of_lines_around_it():
    shipped = []

    async def ship(lines):
        shipped.extend(lines)

    log = server_log.ServerLog(ship)
    for line in ("Traceback (most recent call last):", "DEBUG moorage: request id-1 POST /x 200 finished in 0.1 s", "  File x"):
        log.add(line.encode())
    for _ in range(1000):
        log.add(b"DEBUG moorage: request id-1 POST /x 200 finished in 0.1 s")
    await log.flush()
    assert log.tail() == ["Traceback (most recent call last):", "  File x"]
    assert [line.level for line in shipped[:3]] == ["error", "debug", "error"]
