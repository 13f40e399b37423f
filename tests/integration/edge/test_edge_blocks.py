"""Keys and endpoints whose tokens or money are used up: what is refused, with which words, and until when."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.edges import until

from cluster import keys, snapshot

CHAT = "/v1/chat/completions"
ONE = f"/endpoints/acme/chat-one{CHAT}"


async def told(call):
    async with call as answer:
        return answer.status, answer.headers, await answer.json()


async def status(call):
    async with call as answer:
        return answer.status


def tokens(until=0.0, most=1000.0, limit="tokensPerMinute"):
    return snapshot.Block("token_limit", limit, most, until)


def budget(until=0.0, most=12.5):
    return snapshot.Block("budget_exceeded", "budget", most, until)


async def block(world, **blocks):
    """`key_<id>` or `<endpoint of acme>` -> block."""
    rows = {f"k:{name.removeprefix('key_')}" if name.startswith("key_") else f"e:acme/{name}": row for name, row in blocks.items()}
    await world.change(blocks=rows)


async def test_a_key_without_tokens_is_refused_everywhere_and_others_are_not(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine), endpoint("limited", engine, concurrency=9), endpoint("at-zero"))
    key, other = await world.key(), await world.key()
    ends = time.time() + 30
    await block(world, **{f"key_{keys.key_id(key)}": tokens(ends)})
    large = {"model": "chat-one", "x": "x" * 30_000}
    asked = {ONE: None, CHAT: {"model": "chat-one"}, f"/endpoints/acme/limited{CHAT}": None, f"/endpoints/acme/at-zero{CHAT}": None}
    for path, body in [*asked.items(), (CHAT, large)]:
        code, headers, answer = await told(world.post(path, key, body))
        assert (code, answer["error"]["code"], answer["error"]["type"]) == (429, "token_limit", "rate_limit_error"), path
        assert answer["error"]["message"] == "This key has used up its limit of 1000 tokens a minute."
        assert abs(int(headers["Retry-After"]) - 30) <= 2
        assert (headers["X-RateLimit-Limit-Tokens"], headers["X-RateLimit-Remaining-Tokens"]) == ("1000", "0")
        assert headers["X-RateLimit-Reset-Tokens"] == f"{headers['Retry-After']}s"
    assert await status(world.post(ONE, other)) == 200
    assert world.manager.wakes == []
    assert len(engine.seen) == 1


async def test_an_endpoint_without_budget_is_refused_to_all_its_keys_on_the_slow_path_too(world, engines, endpoint):
    engine = await engines()
    await world.publish(endpoint("chat-one", engine), endpoint("at-zero"), endpoint("other-one", engine))
    platform, own = await world.key(), await world.key(keys.ENDPOINT, endpoint="acme/chat-one")
    await block(world, **{"chat-one": budget(time.time() + 30), "at-zero": tokens(time.time() + 30, limit="tokensPerDay")})
    large = "x" * 30_000
    for path, key, body in ((ONE, platform, None), (ONE, own, None), (CHAT, platform, {"model": "chat-one", "x": large})):
        code, headers, answer = await told(world.post(path, key, body))
        assert (code, answer["error"]["code"]) == (429, "budget_exceeded")
        assert answer["error"]["message"] == "This endpoint has used up its budget of 12.5."
        assert abs(int(headers["Retry-After"]) - 30) <= 2
        assert "X-RateLimit-Limit-Tokens" not in headers
    for path, body in ((f"/endpoints/acme/at-zero{CHAT}", None), (CHAT, {"model": "at-zero", "x": large})):
        code, headers, answer = await told(world.post(path, platform, body))
        assert (code, answer["error"]["code"]) == (429, "token_limit")
        assert answer["error"]["message"] == "This endpoint has used up its limit of 1000 tokens a day."
        assert (headers["X-RateLimit-Limit-Tokens"], headers["X-RateLimit-Remaining-Tokens"]) == ("1000", "0")
        assert headers["X-RateLimit-Reset-Tokens"] == f"{headers['Retry-After']}s"
    assert world.manager.wakes == []
    assert await status(world.post(f"/endpoints/acme/other-one{CHAT}", platform)) == 200


@pytest.mark.parametrize("path", [ONE, CHAT])
async def test_without_an_end_clients_are_told_not_to_try_again(world, engines, endpoint, path):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    await block(world, **{"chat-one": budget()})
    body = {"model": "chat-one", "x": "x" * 30_000} if path == CHAT else None
    code, headers, _ = await told(world.post(path, key, body))
    assert (code, headers["X-Should-Retry"], "Retry-After" in headers) == (429, "false", False)


async def test_members_and_adapters_are_blocked_with_their_endpoint(world, engines, endpoint):
    engine = await engines()
    members = (snapshot.Member("big"), snapshot.Member("small"))
    team = endpoint("team", members=members, state="running", replicas=(engine.replica(member="big"),))
    await world.publish(team, endpoint("tuned", engine, adapters=("legal",)))
    key = await world.key()
    for model in ("team", "team:big", "tuned", "tuned:legal"):
        assert await status(world.post(CHAT, key, {"model": model})) == 200
    await block(world, team=tokens(), tuned=tokens())
    for model in ("team", "team:big", "tuned", "tuned:legal"):
        assert await status(world.post(CHAT, key, {"model": model})) == 429, model
    assert await status(world.post(f"/endpoints/acme/team{CHAT}", key)) == 429


async def test_a_block_ends_at_its_time_with_the_manager_away(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    ends = time.time() + 2
    await block(world, **{f"key_{keys.key_id(key)}": tokens(ends), "chat-one": budget(ends)})
    world.manager.leave()
    assert await status(world.post(ONE, key)) == 429
    large = {"model": "chat-one", "x": "x" * 30_000}
    assert await status(world.post(CHAT, key, large)) == 429

    async def open_again():
        return await status(world.post(ONE, key)) == 200

    await until(open_again, 6)
    assert time.time() >= ends
    assert await status(world.post(CHAT, key, large)) == 200


async def test_a_block_leaves_running_and_held_requests_alone_and_state_can_still_be_asked(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 60, 0.02
    await world.publish(endpoint("chat-one", engine), endpoint("at-zero"))
    key = await world.key()
    stream = await world.post(ONE, key, {"stream": True})
    await stream.content.readline()
    held = asyncio.create_task(status(world.post(f"/endpoints/acme/at-zero{CHAT}", key)))
    await until(lambda: world.manager.wakes)
    start = time.monotonic()
    await block(world, **{f"key_{keys.key_id(key)}": tokens(), "at-zero": tokens()})
    assert await status(world.post(ONE, key)) == 429
    assert time.monotonic() - start < 1.0
    assert await status(world.get("/endpoints/acme/chat-one/health", key)) == 200
    assert await status(world.get("/v1/models", key)) == 200
    assert (await stream.content.read()).endswith(b"[DONE]\n\n")
    await world.publish(endpoint("at-zero", engine))
    assert await held == 200


async def test_what_a_block_refuses_costs_nothing_of_the_minute(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines(), requests_per_minute=50))
    key = await world.key(requests_per_minute=50)
    await block(world, **{"chat-one": tokens()})
    for _ in range(5):
        assert await status(world.post(ONE, key)) == 429
    await block(world)
    _, headers, _ = await told(world.post(ONE, key))
    assert headers["X-RateLimit-Remaining-Requests"] == "49"


async def test_in_the_hugging_face_and_anthropic_dialects_the_words_are_the_same(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key()
    await block(world, **{"chat-one": tokens(time.time() + 9)})
    _, headers, answer = await told(world.post("/endpoints/acme/chat-one/generate", key))
    assert (answer["error_type"], headers["X-Error-Code"]) == ("token_limit", "token_limit")
    assert answer["error"] == headers["X-Error-Message"] == "This endpoint has used up its limit of 1000 tokens a minute."
    _, _, answer = await told(world.post("/v1/messages", key, {"model": "chat-one"}))
    assert (answer["type"], answer["error"]["code"]) == ("error", "token_limit")
