"""Usage of a whole platform is what vLLM itself counted, while manager and gateway are killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import httpx
import pytest
from support.mixed_load import MixedLoad
from support.nemesis import kill_gateway, kill_manager
from support.platforms import Platform, until

from cluster import publisher

KINDS = {"chat": 40, "completion": 15, "several answers": 10, "stream": 20, "leaves": 8, "bad": 4, "stranger": 3}
COUNT, RATE = 300, 10


def database(platform: Platform) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"file:{platform.home}/moorage.db?mode=ro", uri=True))


def counted(platform: Platform, name: str) -> tuple[int, int]:
    """vLLM's own counters: prompt tokens and tokens made."""
    endpoint = platform.get(name)["id"]
    with database(platform) as opened:
        host, port = opened.execute("SELECT host, port FROM replicas WHERE endpoint_id = ?", (endpoint,)).fetchone()
    secret = publisher.engine_secret((platform.home / "secret").read_bytes().strip(), endpoint)
    lines = httpx.get(f"http://{host}:{port}/metrics", headers={"x-engine-secret": secret}).text.splitlines()
    prompt, made = (
        sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{kind}_tokens_total{{"))
        for kind in ("prompt", "generation")
    )
    return int(prompt), int(made)


def used(platform: Platform, name: str) -> dict[str, int]:
    total = platform.manage("GET", f"/{name}/usage").json()["total"]
    return {kind: total[kind] for kind in ("requests", "finished", "aborted", "failed", "promptTokens", "completionTokens")}


def idle(platform: Platform, name: str) -> bool:
    return bool(platform.manage("GET", f"/{name}/metrics").json()["running"] == 0)


@pytest.mark.timeout(900)
def test_usage_equals_vllms_own_counters_while_manager_and_gateway_are_killed(chat_endpoint: tuple[Platform, str]) -> None:
    platform, name = chat_endpoint
    made = platform.manage("POST", f"/{name}/keys", {"description": "mixed"}).json()
    until(lambda: platform.chat(name, key=made["key"], max_tokens=1).status_code == 200, 10, what="the key works")
    until(lambda: idle(platform, name), 30, what="nothing runs")
    prompt, tokens = counted(platform, name)
    load = MixedLoad(platform.url, {(name, "mixed"): made["key"], (name, "platform"): platform.token}, {}, seed=3, kinds=KINDS)

    def kill_both() -> None:
        for number, kill in enumerate((kill_manager, kill_gateway), 1):
            until(lambda number=number: load.begun >= number * COUNT / 3, 300, what="requests flow")
            kill(platform)

    before = used(platform, name)

    async def all_of_it() -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(load.run(COUNT, RATE))
            both.create_task(asyncio.to_thread(kill_both))

    asyncio.run(all_of_it())
    answered = [seen for seen in load.tries if seen.tokens is not None]
    assert len(answered) > 0.7 * COUNT
    # vLLM counts a prompt for each of its answers, and we once.
    more = sum((seen.answers - 1) * seen.tokens[0] for seen in answered if seen.tokens is not None)
    until(lambda: idle(platform, name), 30, what="nothing runs")
    prompt_after, tokens_after = counted(platform, name)
    expected = (prompt_after - prompt - more, tokens_after - tokens)

    def found() -> tuple[int, int]:
        after = used(platform, name)
        return tuple(after[kind] - before[kind] for kind in ("promptTokens", "completionTokens"))  # type: ignore[return-value]

    until(lambda: found() == expected, 30, every=0.5, what=f"usage is {expected}, as vLLM says, not {found()}")
    with database(platform) as opened:
        rows = {row[0]: row[1:] for row in opened.execute("SELECT id, prompt_tokens, completion_tokens FROM usage")}
    assert [seen for seen in answered if rows.get(seen.id) != seen.tokens] == []
    outcomes = used(platform, name)
    assert outcomes["aborted"] > before["aborted"]
    assert platform.manage("DELETE", f"/{name}/keys/{made['id']}").status_code == 200
