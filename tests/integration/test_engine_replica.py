"""A whole replica on the echo engine: real server processes, stock clients, the manager's in-memory twin."""

import asyncio
import dataclasses
import os
import signal
import time

import openai
import pytest
from support.replicas import SECRET, ask, command_line, has_load, has_status, until

from deployments.diagnosis import StartFailed
from deployments.echo import Echo
from deployments.server_process import session_members
from deployments.supervisor import Unhealthy


async def test_phases_are_told_in_order_and_the_ready_server_is_announced(replicas):
    replica = await replicas.start(maxConcurrency=3)
    await until(lambda: "ready" in replicas.names())
    assert replicas.names() == ["starting", "smoke_test", "ready"]
    announced = replicas.manager.announcements[0]
    assert (announced.host, announced.port) == replica.address
    assert announced.max_concurrency == 3
    assert announced.capabilities == ("generate", "embed")
    assert announced.load_seconds > 0


async def test_announcement_is_repeated_as_a_sign_of_life(replicas):
    await replicas.start()
    await until(lambda: len(replicas.manager.announcements) >= 3)
    assert len({dataclasses.replace(told, hardware=None) for told in replicas.manager.announcements}) == 1


async def test_announcements_tell_what_the_server_uses(replicas):
    await replicas.start()
    told = replicas.manager.announcements
    await until(lambda: told[-1].hardware is not None and told[-1].hardware.cpu_cores is not None)
    assert told[0].hardware is None  # a replica that is ready does not wait for a look at it
    used = told[-1].hardware
    assert used.memory_rss > 10 << 20 and used.cpus_claimed > 0 and used.gpus == ()


async def test_an_idle_engine_sleeps_and_the_next_request_wakes_it_and_is_answered(replicas):
    replica = await replicas.start(system={"sleepTimeout": 0.3 / 60}, wakeSeconds=0.2)
    await until(lambda: replicas.manager.announcements[-1].asleep)
    assert (await replica._client.stats()).asleep
    client = await replicas.openai(replica)
    began = time.monotonic()
    answer = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "good morning"}], max_tokens=2)
    assert answer.choices[0].message.content == "good morning"
    assert time.monotonic() - began >= 0.2
    await until(lambda: "awake" in replicas.names())
    await until(lambda: replicas.names().count("sleeping") == 2)
    told = next(phase for phase in replicas.manager.phases if phase.name == "awake")
    assert told.data["seconds"] >= 0.2
    assert replicas.names()[:5] == ["starting", "smoke_test", "ready", "sleeping", "awake"]


async def test_a_stream_keeps_the_engine_awake(replicas):
    replica = await replicas.start(system={"sleepTimeout": 0.2 / 60}, tokensPerSecond=10)
    client = await replicas.openai(replica)
    words = "one two three four five six seven eight"
    stream = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": words}], max_tokens=8, stream=True)
    heard = {time.time(): chunk.choices[0].delta.content or "" async for chunk in stream}
    assert "".join(heard.values()).split() == words.split()
    assert max(heard) - min(heard) > 0.6
    await until(lambda: [phase for phase in replicas.manager.phases if phase.name == "sleeping" and phase.at > max(heard)])
    assert not [phase for phase in replicas.manager.phases if phase.name == "sleeping" and min(heard) < phase.at < max(heard)]


async def test_openai_client_gets_a_chat_answer_with_usage_and_fingerprint(replicas):
    replica = await replicas.start(tag="blue")
    answer = await (await replicas.openai(replica)).chat.completions.create(**ask("one two three", max_tokens=5))
    assert answer.choices[0].message.content == "one two three one two"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert answer.system_fingerprint == "blue"
    assert answer.model == "any"


async def test_openai_client_gets_a_stream_that_ends_with_usage(replicas):
    replica = await replicas.start()
    stream = await (await replicas.openai(replica)).chat.completions.create(
        **ask("a b c", stream=True, stream_options={"include_usage": True})
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "a b c"
    assert chunks[-1].usage.completion_tokens == 3


async def test_stop_string_ends_the_answer_before_it(replicas):
    replica = await replicas.start()
    answer = await (await replicas.openai(replica)).completions.create(model="m", prompt="a b c d", stop=["c"])
    assert answer.choices[0].text == "a b"
    assert answer.choices[0].finish_reason == "stop"


async def test_openai_client_decodes_the_embeddings_it_asks_for_in_base64(replicas):
    replica = await replicas.start()
    made = await (await replicas.openai(replica)).embeddings.create(
        model="m", input=["the quick fox", "fox the quick", "other"], dimensions=32
    )
    same, again, other = (item.embedding for item in made.data)
    assert len(same) == 32
    assert same == pytest.approx(again)
    assert same != pytest.approx(other)


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("/v1/chat/completions", b"{", "application/json", 400),
        ("/v1/chat/completions", b"[" * 100_000, "application/json", 400),
        ("/v1/chat/completions", b"[]", "application/json", 400),
        ("/v1/chat/completions", b'{"messages": []}', "application/json", 400),
        ("/v1/chat/completions", b'{"messages": [{"role": "wizard", "content": "x"}]}', "application/json", 400),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', "application/json", 400),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "x"}], "n": 0}', "application/json", 400),
        ("/v1/chat/completions", b"{}", "text/plain", 415),
        ("/v1/completions", b'{"prompt": 7}', "application/json", 400),
        ("/v1/embeddings", b'{"input": [1]}', "application/json", 400),
        ("/v1/nothing", b"{}", "application/json", 404),
    ],
)
async def test_bad_request_is_refused_in_openai_shape(replicas, path, body, content_type, status):
    replica = await replicas.start()
    http = await replicas.http(replica)
    answer = await http.post(path, content=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("headers", [{}, {"X-Engine-Secret": "wrong"}, {"X-Engine-Secret": ""}], ids=["none", "wrong", "empty"])
async def test_request_without_the_secret_is_403_whatever_the_path(replicas, headers):
    http = await replicas.http(await replicas.start(), headers)
    for path in (
        "/health",
        "/v1/models",
        "/v1/chat/completions",
        "/tokenize",
        "/",
        "/info",
        "/nowhere",
        "/_moorage/stats",
        "/_moorage/drain",
    ):
        for method in ("GET", "POST", "OPTIONS"):
            assert (await http.request(method, path)).status_code == 403, (method, path)


async def test_control_routes_do_not_open_to_the_edge(replicas):
    replica = await replicas.start()
    http = await replicas.http(replica)
    assert (await http.get("/_moorage/stats")).status_code == 403
    assert (await http.post("/_moorage/drain")).status_code == 403


async def test_no_secret_is_on_any_command_line_of_the_server(replicas):
    replica = await replicas.start()
    lines = [command_line(pid) for pid in session_members(replica.process.pid)]
    assert len(lines) == 2
    assert not any(SECRET in line for line in lines)


async def test_running_and_waiting_requests_are_counted_and_drive_the_load(replicas):
    replica = await replicas.start(maxConcurrency=2)
    completions = (await replicas.openai(replica)).chat.completions
    asking = [asyncio.create_task(completions.create(**ask("x", extra_body={"echo": {"delay_s": 1}}))) for _ in range(5)]
    await until(lambda: has_load(replica, 5))
    await replica.check()
    assert (replica.last.running, replica.last.waiting) == (2, 3)
    await asyncio.gather(*asking)
    assert await replica.load() == 0


async def test_stream_whose_client_leaves_is_cancelled_at_once(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    stream = await (await replicas.openai(replica)).chat.completions.create(**ask("word", max_tokens=2000, stream=True))
    await anext(stream)
    assert await replica.load() == 1
    await stream.close()
    await until(lambda: has_load(replica, 0), within=1.0)


async def test_drain_lets_a_running_stream_finish_and_turns_health_to_404(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    stream = await (await replicas.openai(replica)).chat.completions.create(**ask("w", max_tokens=30, stream=True))
    await anext(stream)
    stopping = asyncio.create_task(replica.stop())
    http = await replicas.http(replica)
    await until(lambda: has_status(http, "/health", 404))
    late = await http.post("/v1/completions", json={"prompt": "late"})  # the edge has not seen the 404 yet
    assert late.status_code == 200
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    await stopping
    assert replica.process.exited.is_set()
    assert session_members(replica.process.pid) == []
    assert len(replicas.manager.withdrawn) == 1
    assert replicas.names()[-1] == "draining"


async def test_drain_ends_at_its_limit_and_the_stream_breaks_visibly(replicas):
    replica = await replicas.start(tokensPerSecond=10, drain_timeout_s=1.0)
    stream = await (await replicas.openai(replica)).chat.completions.create(**ask("w", max_tokens=1000, stream=True))
    await anext(stream)
    began = time.monotonic()
    stopping = asyncio.create_task(replica.stop())
    with pytest.raises(openai.APIConnectionError):
        async for _ in stream:
            pass
    await stopping
    assert 0.9 < time.monotonic() - began < 5


async def test_crash_of_a_ready_server_is_told_and_ends_the_replica(replicas):
    replica = await replicas.start(failure="crash")
    with pytest.raises(openai.APIConnectionError):
        await (await replicas.openai(replica)).chat.completions.create(**ask("hello"))
    async with asyncio.timeout(5):
        await replicas.crashed.wait()
    last = replicas.manager.phases[-1]
    assert (last.name, last.reason) == ("failed", "EngineCrashed")
    with pytest.raises(Unhealthy):
        await replica.check()
    assert any("told to crash" in line.text and line.level == "error" for line in replicas.manager.lines)


async def test_server_killed_from_outside_is_a_crash(replicas):
    replica = await replicas.start()
    (server,) = [pid for pid in session_members(replica.process.pid) if pid != replica.process.pid]
    os.kill(server, signal.SIGKILL)
    async with asyncio.timeout(5):
        await replicas.crashed.wait()


async def test_frozen_server_is_unhealthy(replicas):
    replica = await replicas.start()
    (server,) = [pid for pid in session_members(replica.process.pid) if pid != replica.process.pid]
    os.kill(server, signal.SIGSTOP)
    try:
        with pytest.raises(Unhealthy, match="does not answer"):
            await replica.check()
    finally:
        os.kill(server, signal.SIGCONT)
    await replica.check()


class Impatient(Echo):
    hang_after_s = 0.3


async def test_engine_that_does_not_move_with_requests_waiting_is_unhealthy_and_told_once(replicas):
    replica = await replicas.start(engine=Impatient())
    await asyncio.sleep(0.5)
    await replica.check()  # idle for longer than that is fine
    completions = (await replicas.openai(replica)).chat.completions
    asking = asyncio.create_task(completions.create(**ask("x", extra_body={"echo": {"delay_s": 2}})))
    await until(lambda: has_load(replica, 1))
    await replica.check()
    await asyncio.sleep(0.5)
    for _ in range(2):
        with pytest.raises(Unhealthy, match="has not moved"):
            await replica.check()
    await until(lambda: replicas.names()[-1] == "failed")
    assert [phase.reason for phase in replicas.manager.phases].count("EngineHung") == 1
    await asking
    await replica.check()


async def test_server_that_stands_still_is_not_waited_for(replicas):
    replica = await replicas.start(engine=Impatient(), drain_timeout_s=60.0)
    completions = (await replicas.openai(replica)).chat.completions
    asking = asyncio.create_task(completions.create(**ask("x", extra_body={"echo": {"delay_s": 60}})))
    await until(lambda: has_load(replica, 1))
    await asyncio.sleep(0.5)
    for _ in range(3):
        with pytest.raises(Unhealthy):
            await replica.check()
    async with asyncio.timeout(10):
        await replica.stop()
    with pytest.raises(openai.APIConnectionError):
        await asking


@pytest.mark.parametrize(
    ("failure", "reason"), [("load", "EngineExited"), ("smoke", "SmokeTestFailed"), ("hang", "LoadTimeout")], ids=["load", "smoke", "hang"]
)
async def test_failed_start_is_told_with_its_reason_and_leaves_nothing_running(replicas, failure, reason):
    replica = replicas.make(failure=failure, load_timeout_s=3.0)
    with pytest.raises(StartFailed) as raised:
        await replica.start()
    assert raised.value.reason == reason
    last = replicas.manager.phases[-1]
    assert (last.name, last.reason, last.permanent) == ("failed", reason, False)
    assert session_members(replica.process.pid) == []
    assert replicas.manager.announcements == []


async def test_start_that_is_cancelled_leaves_nothing_running(replicas):
    replica = replicas.make(failure="hang")
    starting = asyncio.create_task(replica.start())
    await until(lambda: replica.process is not None)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert session_members(replica.process.pid) == []


async def test_start_waits_for_a_manager_that_is_away(replicas):
    replicas.manager.reachable = False
    replica = replicas.make()
    starting = asyncio.create_task(replica.start())
    await asyncio.sleep(0.3)
    assert not starting.done()
    replicas.manager.reachable = True
    await starting
    assert replicas.names()[:2] == ["starting", "smoke_test"]


async def test_replica_is_announced_when_the_manager_comes_back(replicas):
    replica = replicas.make(loadSeconds=0.5)
    starting = asyncio.create_task(replica.start())
    await until(lambda: replica.process is not None)
    replicas.manager.reachable = False
    await starting
    assert replicas.manager.announcements == []
    replicas.manager.reachable = True
    await until(lambda: replicas.names()[-1:] == ["ready"])
    assert len(replicas.manager.announcements) >= 1


async def test_folder_of_the_replica_goes_with_it(replicas, tmp_path):
    replica = await replicas.start()
    assert len(list((tmp_path / "home" / "replicas").iterdir())) == 1
    await replica.stop()
    assert list((tmp_path / "home" / "replicas").iterdir()) == []
