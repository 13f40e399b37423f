"""Tenants, grants, shares, roles and expiry at the edge; what happens to running streams when access is taken away."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import aiohttp
import pytest
from support import access_cases
from support.edges import until

from cluster import errors, keys, snapshot
from gateway import access, withdrawal

CHAT = "/v1/chat/completions"


async def told(call):
    async with call as answer:
        return answer.status, await answer.json()


async def status(call):
    async with call as answer:
        return answer.status


async def populated(world, engine, endpoint):
    """The table's endpoints and keys; name -> key."""
    rows = []
    for path, fields in access_cases.ENDPOINTS.items():
        namespace, name = path.split("/")
        rows.append(endpoint(name, engine, namespace=namespace, tenant="acme", **fields))
    await world.publish(*rows)
    await world.change(grants=access_cases.GRANTS)
    return {name: await world.key(**{"kind": keys.PLATFORM, **fields}) for name, fields in access_cases.KEYS.items()}


async def test_haproxy_and_the_slow_path_and_python_decide_the_same_table(world, engines, endpoint):
    engine = await engines()
    given = await populated(world, engine, endpoint)
    now = world.manager.now
    large = "x" * 30_000
    for name, key in given.items():
        identity = access.Identity.of(now.keys[keys.digest(key)])
        for path in access_cases.ENDPOINTS:
            wanted = access_cases.expected(name, path)
            try:
                access.check(identity, now.endpoints[path], now.grants)
                decided = 200
            except errors.ModelNotFound:
                decided = 404
            except errors.Forbidden:
                decided = 403
            found = {
                "python": decided,
                "url": await status(world.post(f"/endpoints/{path}{CHAT}", key)),
                "model": await status(world.post(CHAT, key, {"model": path})),
                "large": await status(world.post(CHAT, key, {"model": path, "x": large})),
            }
            assert found == dict.fromkeys(found, wanted), (name, path)


async def test_models_lists_just_what_the_table_lets_a_key_call(world, engines, endpoint):
    given = await populated(world, await engines(), endpoint)
    for name, key in given.items():
        _, answer = await told(world.get("/v1/models", key))
        home = access_cases.KEYS[name].get("namespace", "acme")
        listed = {row["id"] if "/" in row["id"] else f"{home}/{row['id']}" for row in answer["data"]}
        assert listed == {path for path in access_cases.ENDPOINTS if access_cases.expected(name, path) == 200}, name


async def test_a_bare_model_name_means_the_keys_home_namespace(world, engines, endpoint):
    home, lab = await engines("home"), await engines("lab")
    await world.publish(endpoint("twice", home), endpoint("twice", lab, namespace="lab"), endpoint("lab-only", lab, namespace="lab"))
    await world.change(grants={"u:ann": ("lab",)})
    key = await world.key(role="member", scope="u:ann", tenant="acme")
    assert (await told(world.post(CHAT, key, {"model": "twice"})))[1]["engine"] == "home"
    assert (await told(world.post(CHAT, key, {"model": "lab/twice"})))[1]["engine"] == "lab"
    assert await status(world.post(CHAT, key, {"model": "lab-only"})) == 404


async def test_a_viewers_refusal_is_a_sentence_in_the_right_shape(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    key = await world.key(role="viewer", tenant="acme")
    code, answer = await told(world.post(f"/endpoints/acme/chat-one{CHAT}", key))
    assert (code, answer["error"]["code"], answer["error"]["message"]) == (403, "forbidden", access.VIEWERS_CALL_PUBLIC)
    code, answer = await told(world.post("/endpoints/acme/chat-one/generate", key))
    assert (code, answer["error_type"]) == (403, "forbidden")


async def test_private_is_bound_to_networks_for_its_own_namespace_too_and_never_shared(world, engines, endpoint):
    engine = await engines()
    closed = {"type": "private", "shared_with": ("*",)}
    await world.publish(
        endpoint("from-here", engine, networks=("127.0.0.0/8",), **closed), endpoint("not-here", engine, networks=("10.0.0.0/8",), **closed)
    )
    await world.change(grants={"u:ann": ("acme",)})
    own = await world.key(tenant="acme")
    key_of = await world.key(keys.ENDPOINT, endpoint="acme/from-here")
    granted = await world.key(namespace="lab", tenant="acme", scope="u:ann")
    assert await status(world.post(f"/endpoints/acme/from-here{CHAT}", own)) == 200
    assert await status(world.post(f"/endpoints/acme/from-here{CHAT}", key_of)) == 200
    assert await status(world.post(f"/endpoints/acme/not-here{CHAT}", own)) == 403
    assert await status(world.post(f"/endpoints/acme/from-here{CHAT}", granted)) == 404


async def test_engines_and_the_log_are_told_the_tenant_and_clients_cannot_say_it(world, engines, endpoint):
    engine = await engines()
    await world.publish(
        endpoint("chat-one", engine), endpoint("open-one", engine, type="public"), endpoint("limited", engine, concurrency=9)
    )
    key = await world.key(tenant="acme-inc")
    spoofed = {"X-Moorage-Tenant": "globex", "x-moorage-key-id": "other", "X-Moorage_Tenant": "globex"}
    for name in ("chat-one", "limited"):
        async with world.post(f"/endpoints/acme/{name}{CHAT}", key, headers=spoofed) as answer:
            request_id = answer.headers["X-Request-Id"]
        seen = engine.seen[-1].headers
        assert seen.getall("X-Moorage-Tenant") == ["acme-inc"]
        assert seen.getall("X-Moorage-Key-Id") == [keys.key_id(key)]
        assert not [value for value in seen.values() if "globex" in value]
    assert await status(world.post(f"/endpoints/acme/open-one{CHAT}", headers=spoofed)) == 200
    assert {"X-Moorage-Tenant", "X-Moorage-Key-Id", "X-Moorage_Tenant"}.isdisjoint(engine.seen[-1].headers)
    file = world.settings.files.access_log
    line = await until(
        lambda: next((line for line in file.read_text().splitlines() if request_id in line), None) if file.exists() else None
    )
    assert json.loads(line)["tenant"] == "acme-inc"
    assert key not in file.read_text()


async def test_a_key_expires_by_itself_at_its_second_with_nobody_else_there(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 2000, 0.05
    await world.publish(endpoint("chat-one", engine))
    ends = int(time.time()) + 3
    dying = await world.key(expires_at=float(ends))
    living = await world.key(expires_at=float(ends + 3600))
    streams = [await world.post(f"/endpoints/acme/chat-one{CHAT}", key, {"stream": True}) for key in (dying, living)]
    world.manager.leave()
    assert await status(world.post(f"/endpoints/acme/chat-one{CHAT}", dying)) == 200
    assert await broken(streams[0])
    assert ends <= time.time() < ends + 5
    for path, body in (
        (f"/endpoints/acme/chat-one{CHAT}", None),
        (CHAT, {"model": "chat-one"}),
        (CHAT, {"model": "chat-one", "x": "x" * 30_000}),
    ):
        code, answer = await told(world.post(path, dying, body))
        assert (code, answer["error"]["code"]) == (401, "invalid_api_key")
        assert await status(world.post(path, living, body)) == 200
    assert await status(world.get("/v1/models", dying)) == 401
    assert (await streams[1].content.readline()).startswith(b"data:")
    streams[1].close()


async def running(world, engine, paths, key):
    before = engine.active
    streams = [await world.post(f"/endpoints/{path}{CHAT}", key, {"stream": True}) for path in paths]
    for stream in streams:
        await stream.content.readline()
    assert engine.active == before + len(streams)
    return streams


async def broken(stream) -> bool:
    try:
        await stream.content.read()
    except aiohttp.ClientError:
        return True
    finally:
        stream.close()
    return False


LESS = {
    "the key's role is lowered": lambda world, key: world.edit_key(key, role="viewer"),
    "a grant is taken back": lambda world, key: world.change(grants={}),
    "a share is taken back": lambda world, key: world.publish(
        dataclasses.replace(world.manager.now.endpoints["acme/shared-one"], shared_with=("umbrella",))
    ),
    "the endpoint is made private": lambda world, key: world.publish(
        dataclasses.replace(world.manager.now.endpoints["acme/shared-one"], type="private")
    ),
    "the endpoint's networks change": lambda world, key: world.publish(
        dataclasses.replace(world.manager.now.endpoints["acme/closed"], networks=("10.0.0.0/8",))
    ),
}
USED = {"a grant is taken back": "lab/plain", "the endpoint's networks change": "acme/closed"}
OWNERS = {"a share is taken back": "of globex", "the endpoint is made private": "of globex", "a grant is taken back": "member granted lab"}


@pytest.mark.parametrize("what", list(LESS))
async def test_streams_are_cut_when(world, engines, endpoint, what):
    engine = await engines()
    engine.ticks, engine.pause = 2000, 0.05
    given = await populated(world, engine, endpoint)
    key, path = given[OWNERS.get(what, "member")], USED.get(what, "acme/shared-one")
    cut, kept = await running(world, engine, [path], key), await running(world, engine, ["acme/plain"], given["admin of the tenant"])
    start = time.monotonic()
    await LESS[what](world, key)
    assert await status(world.post(f"/endpoints/{path}{CHAT}", key)) in (403, 404)
    assert await asyncio.wait_for(broken(cut[0]), 5)
    assert time.monotonic() - start < 5
    assert (await kept[0].content.readline()).strip() is not None
    assert engine.active == 1
    kept[0].close()


async def test_a_stream_without_a_key_is_cut_when_its_endpoint_is_public_no_more(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 2000, 0.05
    await world.publish(endpoint("open-one", engine, type="public"))
    (stream,) = await running(world, engine, ["acme/open-one"], None)
    await world.publish(endpoint("open-one", engine))
    assert await asyncio.wait_for(broken(stream), 5)


async def test_a_stream_that_was_let_in_before_and_begins_after_is_cut_as_well(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause, engine.work = 2000, 0.05, 2.0
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    asked = asyncio.create_task(world.post(f"/endpoints/acme/chat-one{CHAT}", key, {"stream": True}).__aenter__())
    await until(lambda: engine.active)
    await world.edit_key(key, role="viewer")
    assert await asyncio.wait_for(broken(await asked), 8)


async def test_limits_and_new_keys_and_blocks_take_no_access_away(world, engines, endpoint):
    engine = await engines()
    engine.ticks, engine.pause = 60, 0.02
    await world.publish(endpoint("chat-one", engine))
    key = await world.key()
    (stream,) = await running(world, engine, ["acme/chat-one"], key)
    await world.edit_key(key, requests_per_minute=1, concurrency=1)
    await world.key()
    await world.change(blocks={f"k:{keys.key_id(key)}": snapshot.Block("token_limit", "tokensPerMinute", 5)})
    await world.publish(dataclasses.replace(world.manager.now.endpoints["acme/chat-one"], shared_with=("globex",)))
    assert not await broken(stream)


def test_expiries_tell_of_each_time_once():
    expiries = withdrawal.Expiries()
    rows = {f"d{number}": snapshot.Key(f"k{number}", "p", "acme", expires_at=float(number)) for number in range(3)}
    expiries.learn(snapshot.Snapshot(keys=rows), None)
    assert [expiries.passed(at) for at in (0.5, 1.5, 1.6)] == [False, True, False]
    expiries.learn(snapshot.Snapshot(keys={"d9": snapshot.Key("k9", "p", "acme", expires_at=1.7)}), {"d9", "d1"})
    assert [expiries.passed(at) for at in (1.8, 1.9, 2.0)] == [True, False, True]
