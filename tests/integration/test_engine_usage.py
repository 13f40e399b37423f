"""What replicas on the echo engine tell of the requests that they had."""

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
import time

import httpx
from support.replicas import ask, until

from cluster.messages import ReplicaIdentity
from deployments.server_process import session_members

EDGE = {"X-Request-Id": "rid-1", "X-Moorage-Key-Id": "key-1", "X-Moorage-Tenant": "team"}


def used(replicas):
    """What the manager was told, by request id."""
    return {record.id: record for _, record in replicas.manager.used}


async def test_each_request_of_any_dialect_is_told_to_the_manager_once_it_ends(replicas):
    replica = await replicas.start()
    http = await replicas.http(replica)
    asked = {
        "chat": ("/v1/chat/completions", ask("a b c", max_tokens=5)),
        "stream": ("/v1/chat/completions", ask("a b c", max_tokens=4, stream=True)),
        "whole": ("/v1/completions", {"prompt": "a b", "max_tokens": 3}),
        "face": ("/", {"inputs": "a b c d", "parameters": {"max_new_tokens": 2}}),
        "nova": ("/api/v2/predict/generic", {"items": [{"id": "1", "value": "a b"}], "params": {"max_tokens_to_generate": 2}}),
        "embed": ("/v1/embeddings", {"input": ["a b", "c"]}),
        "bad": ("/v1/completions", {"prompt": 7}),
        "scripted": ("/v1/completions", {"prompt": "a", "echo": {"status": 503}}),
    }
    for name, (path, body) in asked.items():
        await http.post(path, json=body, headers=EDGE | {"X-Request-Id": name})
    await http.get("/v1/models", headers=EDGE)
    await until(lambda: len(used(replicas)) == len(asked))
    found = {name: (record.prompt_tokens, record.completion_tokens, record.outcome) for name, record in used(replicas).items()}
    assert found == {
        "chat": (3, 5, "finished"),
        "stream": (3, 4, "finished"),
        "whole": (2, 3, "finished"),
        "face": (4, 2, "finished"),
        "nova": (2, 2, "finished"),
        "embed": (3, 0, "finished"),
        "bad": (0, 0, "failed"),
        "scripted": (0, 0, "failed"),
    }
    chat = used(replicas)["chat"]
    assert (chat.key, chat.tenant, chat.route, chat.model, chat.status) == ("key-1", "team", "/v1/chat/completions", "any", 200)
    assert 0 < chat.first_token_s <= chat.total_s and 0 < chat.share_s <= chat.total_s
    assert {identity for identity, _ in replicas.manager.used} == {ReplicaIdentity("team--echo--r1", "replica-0")}
    assert len(replicas.manager.used) == len(asked)


async def test_stream_whose_client_leaves_is_told_as_aborted_with_the_tokens_it_had(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    http = await replicas.http(replica)
    async with http.stream("POST", "/v1/completions", json={"prompt": "a b", "max_tokens": 1000, "stream": True}, headers=EDGE) as answer:
        async for _ in answer.aiter_bytes():
            break
    await until(lambda: used(replicas))
    record = used(replicas)["rid-1"]
    assert (record.outcome, record.status, record.prompt_tokens) == ("aborted", 200, 2)
    assert 1 <= record.completion_tokens < 100


async def test_two_streams_at_once_share_the_replicas_time(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    http = await replicas.http(replica)
    began = time.monotonic()
    bodies = [http.post("/v1/completions", json={"prompt": "a", "max_tokens": 10}, headers=EDGE | {"X-Request-Id": name}) for name in "ab"]
    await asyncio.gather(*bodies)
    took = time.monotonic() - began
    await until(lambda: len(used(replicas)) == 2)
    assert 0.4 < sum(record.share_s for record in used(replicas).values()) <= took
    assert all(record.total_s > 1.5 * record.share_s for record in used(replicas).values())


async def test_drain_that_cuts_a_stream_off_tells_what_it_had_used(replicas):
    replica = await replicas.start(tokensPerSecond=20, drain_timeout_s=0.5)
    http = await replicas.http(replica)
    with contextlib.suppress(httpx.HTTPError):
        async with http.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 1000, "stream": True}, headers=EDGE) as answer:
            async for _ in answer.aiter_bytes():
                await replica.stop()
                break
    record = used(replicas)["rid-1"]
    assert (record.outcome, record.prompt_tokens) == ("aborted", 1)
    assert record.completion_tokens >= 1


async def test_records_of_a_replica_that_stops_are_delivered_and_nothing_stays_on_disk(replicas, tmp_path):
    replica = await replicas.start()
    await (await replicas.http(replica)).post("/v1/completions", json={"prompt": "a"}, headers=EDGE)
    assert list((tmp_path / "home" / "usage").iterdir())
    await replica.stop()
    assert list(used(replicas)) == ["rid-1"]
    assert list((tmp_path / "home" / "usage").iterdir()) == []


async def test_kill_9_of_a_server_leaves_a_record_of_each_request_that_ran(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    http = await replicas.http(replica)
    (server,) = (pid for pid in session_members(replica.process.pid) if pid != replica.process.pid)
    seen, body = 0, {"prompt": "a b", "max_tokens": 1000, "stream": True}
    with contextlib.suppress(httpx.HTTPError):
        async with http.stream("POST", "/v1/completions", json=body, headers=EDGE) as answer:
            async for line in answer.aiter_lines():
                if line:
                    seen += 1
                    if seen == 3:
                        os.kill(server, signal.SIGKILL)
    await until(lambda: used(replicas))
    record = used(replicas)["rid-1"]
    assert (record.key, record.outcome, record.status, record.prompt_tokens, record.model) == ("key-1", "failed", 200, 2, "")
    assert seen <= record.completion_tokens <= seen + 1
    assert len(replicas.manager.used) == 1


KILLED = """
import asyncio, os, sys
sys.path[:0] = {paths!r}
from deployments.manager_port import ManagerUnavailable
from support.replicas import *
from test_engine_usage import EDGE

async def main():
    replicas = Replicas({home!r})
    replicas.manager.usage = away
    replica = await replicas.start()
    http = await replicas.http(replica)
    for number in range(20):
        named = EDGE | {{"X-Request-Id": f"killed-{{number}}"}}
        await http.post("/v1/completions", json={{"prompt": "a b", "max_tokens": 3}}, headers=named)
    print(replica.process.pid, flush=True)
    await asyncio.Event().wait()

async def away(*_):
    raise ManagerUnavailable

asyncio.run(main())
"""


async def test_records_of_a_replica_that_was_killed_with_its_server_are_delivered_by_another_of_the_node(replicas, tmp_path):
    paths = [str(pathlib.Path(__file__).parent), *sys.path]
    script = KILLED.format(paths=paths, home=str(tmp_path / "home"))
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        leader = int(await killed.stdout.readline())
    for pid in [*session_members(leader), killed.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await killed.wait()
    await until(lambda: not session_members(leader))
    await replicas.start()
    await until(lambda: len(used(replicas)) == 20)
    assert {record.prompt_tokens + record.completion_tokens for record in used(replicas).values()} == {5}
    assert {identity.id for identity, _ in replicas.manager.used} == {"replica-0"}
    assert len(replicas.manager.used) == 20
