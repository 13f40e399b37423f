"""The guard as an ASGI application, without sockets."""

import asyncio
import json

import pytest

from deployments import guard
from deployments.engine_stats import EngineStats

SECRETS = guard.Secrets(b"edge", b"control")
EDGE = (b"x-engine-secret", b"edge")
CONTROL = (b"x-moorage-control", b"control")


class App:
    """An engine that answers 200 when it is let go on, and remembers what it saw."""

    def __init__(self):
        self.scopes = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failure = None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        await self.go_on.wait()
        if self.failure:
            raise self.failure
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"engine"})


async def call(application, path="/v1/models", *headers, method="GET", kind="http"):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""} if kind == "http" else {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": list(headers)}
    await application({**scope, "method": method} if kind == "http" else scope, receive, send)
    return sent


def status(sent):
    return sent[0]["status"]


async def stats(application):
    return json.loads((await call(application, "/_moorage/stats", CONTROL))[1]["body"])


@pytest.fixture
def app():
    return App()


@pytest.fixture
def guarded(app):
    return guard.Guard(app, SECRETS, EngineStats())


def test_guard_without_secrets_does_not_start(app):
    with pytest.raises(RuntimeError, match="must be set"):
        guard.Guard(app, guard.Secrets(b"", b"control"))
    with pytest.raises(RuntimeError, match="must be set"):
        guard.Guard(app, guard.Secrets(b"edge", b""))


def test_secrets_are_taken_out_of_the_environment():
    environment = {"MOORAGE_ENGINE_SECRET": "a", "MOORAGE_CONTROL_TOKEN": "b", "PATH": "/bin"}
    assert guard.Secrets.take(environment) == guard.Secrets(b"a", b"b")
    assert environment == {"PATH": "/bin"}
    assert "'a'" not in repr(guard.Secrets(b"a", b"b"))


async def test_request_with_the_secret_reaches_the_engine_without_it(app, guarded):
    assert status(await call(guarded, "/v1/models", EDGE, (b"accept", b"*/*"))) == 200
    assert app.scopes[0]["headers"] == [(b"accept", b"*/*")]
    assert app.scopes[0][guard.INTERNAL] is False


async def test_only_the_control_token_marks_a_request_as_internal(app, guarded):
    await call(guarded, "/v1/models", EDGE, CONTROL)
    assert app.scopes[0][guard.INTERNAL] is True
    assert app.scopes[0]["headers"] == []


@pytest.mark.parametrize(
    "headers",
    [[], [(b"x-engine-secret", b"wrong")], [EDGE, EDGE], [EDGE, (b"x-engine-secret", b"wrong")], [CONTROL], [(b"x-engine-secret", b"edg")]],
    ids=["none", "wrong", "twice", "right and wrong", "control only", "prefix"],
)
@pytest.mark.parametrize("path", ["/", "/health", "/v1/chat/completions", "/_moorage/nothing/../../v1", "//", "/%2e%2e/health"])
async def test_anything_but_the_one_secret_is_403(app, guarded, path, headers):
    if headers == [CONTROL] and path.startswith("/_moorage/"):
        assert status(await call(guarded, path, *headers)) == 404
    else:
        assert status(await call(guarded, path, *headers)) == 403
    assert app.scopes == []


async def test_websocket_without_the_secret_is_closed_before_it_is_accepted(app, guarded):
    assert await call(guarded, "/v1/realtime", kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert await call(guarded, "/_moorage/stats", CONTROL, kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert app.scopes == []


async def test_websocket_with_the_secret_reaches_the_engine(app, guarded):
    await call(guarded, "/v1/realtime", EDGE, kind="websocket")
    assert app.scopes[0]["type"] == "websocket"


async def test_requests_are_counted_until_they_end_and_health_checks_are_not(app, guarded):
    app.go_on.clear()
    running = [asyncio.create_task(call(guarded, path, EDGE)) for path in ("/v1/a", "/v1/b", "/health")]
    await asyncio.sleep(0)
    assert (await stats(guarded))["inflight"] == 2
    app.go_on.set()
    await asyncio.gather(*running)
    assert (await stats(guarded))["inflight"] == 0


async def test_failed_and_cancelled_requests_are_counted_out(app, guarded):
    app.failure = ValueError("engine")
    with pytest.raises(ValueError, match="engine"):
        await call(guarded, "/v1/a", EDGE)
    app.failure = None
    app.go_on.clear()
    running = asyncio.create_task(call(guarded, "/v1/a", EDGE))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await stats(guarded))["inflight"] == 0


async def test_drain_turns_only_health_to_404(guarded):
    assert status(await call(guarded, "/health", EDGE)) == 200
    await call(guarded, "/_moorage/drain", CONTROL, method="POST")
    assert status(await call(guarded, "/health", EDGE)) == 404
    assert status(await call(guarded, "/v1/models", EDGE)) == 200
    assert (await stats(guarded))["draining"] is True


async def test_engine_that_tells_its_counts_is_believed(app):
    told = EngineStats(connected=True, unfinished=lambda: 5, waiting=lambda: 2, stepped_at=7.5, tasks=("embed",), max_concurrency=9)
    report = await stats(guard.Guard(app, SECRETS, told))
    assert (report["running"], report["waiting"], report["steps_at"]) == (3, 2, 7.5)
    assert (report["tasks"], report["max_concurrency"], report["connected"]) == (["embed"], 9, True)


async def test_stale_count_of_waiting_requests_never_makes_running_negative(app):
    told = EngineStats(connected=True, unfinished=lambda: 1, waiting=lambda: 4)
    report = await stats(guard.Guard(app, SECRETS, told))
    assert (report["running"], report["waiting"]) == (0, 1)
