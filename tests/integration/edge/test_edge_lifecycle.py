"""The gateway and HAProxy dying, coming back and growing under running streams; the manager going away."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import stat
import sys
import time
from pathlib import Path

import aiohttp
from support.edges import until
from support.ports import free_port

from cluster import keys, snapshot
from gateway import edge, last_snapshot

CHAT = "/v1/chat/completions"

GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway import config, control, edge, last_snapshot
async def main(home, port):
    now = last_snapshot.load(Path(home) / "given.json")
    settings = config.EdgeConfig(home=Path(home), host="127.0.0.1", port=int(port), slots=8, threads=1)
    one = edge.Edge(settings, control.ControlTwin(now))
    await one.start()
    running = asyncio.create_task(one.run())
    while one.version != now.version:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await running
asyncio.run(main(*sys.argv[1:]))
"""


async def gateway_process(home: Path, port: int, now: snapshot.Snapshot):
    """A gateway in a process of its own, told `now` by its manager; ready when this returns."""
    last_snapshot.LastSnapshot(home / "given.json").save(now, None)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", GATEWAY, str(home), str(port), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
    return process


def one_key():
    minted = keys.mint("p")
    return minted.key, {minted.digest: snapshot.Key(minted.id, "p", "acme")}


async def test_a_killed_gateway_is_replaced_without_a_stream_noticing(home, engines, endpoint):
    one, two = await engines("one"), await engines("two")
    one.ticks, one.pause = 60, 0.1
    key, rows = one_key()
    port = free_port()
    row = endpoint("chat-one", one)
    url, headers = f"http://127.0.0.1:{port}/endpoints/acme/chat-one{CHAT}", {"Authorization": f"Bearer {key}"}
    first = await gateway_process(home, port, snapshot.Snapshot(1, {row.path: row}, rows))
    haproxy = (home / "edge" / "haproxy.pid").read_text()
    async with aiohttp.ClientSession() as client, client.post(url, json={"stream": True}, headers=headers) as stream:
        await stream.content.readline()
        first.send_signal(signal.SIGKILL)
        await first.wait()
        async with client.post(url, json={}, headers=headers) as answer:
            assert answer.status == 200
        new = endpoint("chat-two", two)
        second = await gateway_process(home, port, snapshot.Snapshot(2, {row.path: row, new.path: new}, rows))
        async with client.post(url.replace("chat-one", "chat-two"), json={}, headers=headers) as answer:
            assert (await answer.json())["engine"] == "two"
        text = await stream.content.read()
    assert text.endswith(b"data: [DONE]\n\n")
    assert (home / "edge" / "haproxy.pid").read_text() == haproxy
    second.kill()
    await second.wait()


async def test_what_a_dead_gateway_missed_is_caught_up_by_its_successor(home, engines, endpoint):
    engine = await engines("one")
    key, rows = one_key()
    other, more = one_key()
    port = free_port()
    row, gone = endpoint("chat-one", engine), endpoint("gone-one", await engines("gone"))
    first = await gateway_process(home, port, snapshot.Snapshot(1, {row.path: row, gone.path: gone}, rows | more))
    first.kill()
    await first.wait()
    second = await gateway_process(home, port, snapshot.Snapshot(2, {row.path: row}, more))
    expected = {("chat-one", other): 200, ("chat-one", key): 401, ("gone-one", other): 404}
    async with aiohttp.ClientSession() as client:
        for (name, given), code in expected.items():
            url = f"http://127.0.0.1:{port}/endpoints/acme/{name}{CHAT}"
            async with client.post(url, json={}, headers={"Authorization": f"Bearer {given}"}) as answer:
                assert answer.status == code, name
    second.kill()
    await second.wait()


async def test_access_blocks_and_counts_are_those_of_before_when_a_killed_gateway_is_replaced(home, engines, endpoint):
    key, rows = one_key()
    digest, row = next(iter(rows.items()))
    rows = {digest: dataclasses.replace(row, tenant="acme", scope="u:ann", requests_per_minute=50)}
    port = free_port()
    engine = await engines("one")
    lab = endpoint("chat-one", engine, namespace="lab", requests_per_minute=4)
    shared = endpoint("shared", engine, namespace="other", shared_with=("acme",))
    endpoints = {one.path: one for one in (lab, shared, endpoint("used-up", engine))}
    block = {"e:acme/used-up": snapshot.Block("budget_exceeded", "budget", 3)}
    now = snapshot.Snapshot(1, endpoints, rows, {"u:ann": ("lab",)}, block)
    headers = {"Authorization": f"Bearer {key}"}
    found = []
    async with aiohttp.ClientSession() as client:

        async def ask(path):
            async with client.post(f"http://127.0.0.1:{port}/endpoints/{path}{CHAT}", json={}, headers=headers) as answer:
                return answer.status

        if (left := 60 - time.time() % 60) < 20:
            await asyncio.sleep(left + 0.05)
        first = await gateway_process(home, port, now)
        found += [await ask("lab/chat-one") for _ in range(2)]
        first.kill()
        await first.wait()
        found += [await ask("lab/chat-one"), await ask("other/shared"), await ask("acme/used-up")]
        second = await gateway_process(home, port, dataclasses.replace(now, version=2, grants={"u:ann": ("lab", "shop")}, blocks={}))
        found += [await ask("lab/chat-one") for _ in range(2)] + [await ask("acme/used-up")]
        second.kill()
        await second.wait()
        third = await gateway_process(home, port, dataclasses.replace(now, version=3, grants={}, blocks=block))
        found += [await ask("lab/chat-one"), await ask("other/shared"), await ask("acme/used-up")]
        third.kill()
        await third.wait()
    assert found == [200, 200, 200, 200, 429, 200, 429, 200, 404, 200, 429]


async def test_the_pool_of_slots_grows_under_a_running_stream(worlds, engines, endpoint):
    world = await worlds(slots=2)
    engine = await engines("one")
    engine.ticks, engine.pause = 40, 0.05
    await world.publish(endpoint("chat-00", engine))
    key = await world.key()
    async with world.post(f"/endpoints/acme/chat-00{CHAT}", key, {"stream": True}) as stream:
        await stream.content.readline()
        await world.publish(*(endpoint(f"chat-{number:02}", engine) for number in range(5)))
        for number in range(5):
            async with world.post(f"/endpoints/acme/chat-{number:02}{CHAT}", key) as answer:
                assert answer.status == 200
        await world.revoke("")
        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
    assert world.edge._haproxy.slots == 8


async def test_the_minutes_count_of_a_key_survives_a_reload(worlds, engines, endpoint):
    world = await worlds(slots=1)
    engine = await engines("one")
    await world.publish(endpoint("chat-00", engine))
    key = await world.key(requests_per_minute=5)

    async def ask():
        async with world.post(f"/endpoints/acme/chat-00{CHAT}", key) as answer:
            return answer.status, answer.headers.get("X-RateLimit-Remaining-Requests")

    before = [await ask() for _ in range(3)]
    await world.publish(*(endpoint(f"chat-{number:02}", engine) for number in range(3)))
    after = [await ask() for _ in range(3)]
    minute_turned = before[-1][1] != "2" or after[0][1] == "4"
    assert minute_turned or [status for status, _ in after] == [200, 200, 429]


async def test_a_key_revoked_after_a_reload_loses_its_older_streams_too(worlds, engines, endpoint):
    world = await worlds(slots=1)
    engine = await engines("one")
    engine.ticks = 1000
    await world.publish(endpoint("chat-00", engine))
    key, _ = await world.key(), await world.key()
    stream = await world.post(f"/endpoints/acme/chat-00{CHAT}", key, {"stream": True})
    await stream.content.readline()
    await world.publish(*(endpoint(f"chat-{number:02}", engine) for number in range(3)))
    await world.revoke(key)
    async with asyncio.timeout(2):
        try:
            await stream.content.read()
        except aiohttp.ClientPayloadError:
            stream.close()
            return
    raise AssertionError("the stream ended as if it were finished")


async def test_a_thousand_endpoints_at_zero_need_no_slot(worlds, endpoint):
    world = await worlds(slots=1)
    rows = [endpoint(f"chat-{number:04}") for number in range(1000)]
    loop = asyncio.get_running_loop()
    start = loop.time()
    await world.publish(*rows)
    assert loop.time() - start < 2.0
    start = loop.time()
    await world.publish(dataclasses.replace(rows[0], state="paused"))
    assert loop.time() - start < 0.3
    assert world.edge._haproxy.slots == 1


async def test_the_edge_serves_on_while_the_manager_is_away_and_catches_up(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    world.manager.leave()
    async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
        assert answer.status == 200
    world.manager.publish(snapshot.Snapshot(99, {}, world.manager.now.keys))
    world.manager.come_back()
    await world.caught_up()
    async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
        assert answer.status == 404
    counted = await until(lambda: [dict(report.requests) for report in world.manager.reports if report.requests], 5)
    assert [rows["acme/chat-one"][0] for rows in counted] == [1]


async def test_a_killed_haproxy_is_started_again_with_everything(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines("one")))
    key = await world.key()
    pid = world.edge._haproxy.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for target in (pid, *map(int, workers)):
        os.kill(target, signal.SIGKILL)
    async with asyncio.timeout(10):
        while True:
            try:
                async with world.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
                    assert answer.status == 200
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    assert world.edge._haproxy.pid not in (None, pid)


async def test_with_the_manager_away_from_the_start_the_last_snapshot_serves(worlds, home, engines, endpoint):
    engine = await engines("one")
    first = await worlds()
    await first.publish(endpoint("chat-one", engine))
    key = await first.key()
    await until(lambda: (saved := last_snapshot.load(home / "edge" / "snapshot.json")) and saved.version == first.manager.now.version, 5)
    assert stat.S_IMODE((home / "edge" / "snapshot.json").stat().st_mode) == 0o600
    first.running.cancel()
    await asyncio.gather(first.running, return_exceptions=True)
    await first.edge.stop(grace=0)
    first.manager.leave()
    second = edge.Edge(first.settings, first.manager)
    await second.start()
    try:
        async with first.post(f"/endpoints/acme/chat-one{CHAT}", key) as answer:
            assert answer.status == 200
    finally:
        await second.stop(grace=0)


async def test_activity_tells_what_runs_and_which_keys_are_used(world, engines, endpoint):
    engine = await engines()
    engine.ticks = 200
    await world.publish(endpoint("chat-one", engine), endpoint("at-zero"))
    key = await world.key()
    stream = await world.post(f"/endpoints/acme/chat-one{CHAT}", key, {"stream": True})
    held = asyncio.create_task(world.post(f"/endpoints/acme/at-zero{CHAT}", key).__aenter__())
    wanted = {"acme/chat-one": 1, "acme/at-zero": 1}
    await until(lambda: world.manager.reports and dict(world.manager.reports[-1].active) == wanted, 10)
    stream.close()
    held.cancel()
    await until(lambda: not world.manager.reports[-1].active)
    await until(lambda: any(keys.key_id(key) in report.keys_used for report in world.manager.reports))
    counted = [dict(report.requests) for report in world.manager.reports if report.requests]
    assert [(path, count) for row in counted for path, (count, _) in row.items()] == [("acme/chat-one", 1)]


async def test_secrets_are_on_no_command_line_and_files_are_private(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines()))
    command = Path(f"/proc/{world.edge._haproxy.pid}/cmdline").read_bytes().decode()
    assert world.edge._haproxy.secret not in command
    files = world.settings.files
    assert {stat.S_IMODE(path.stat().st_mode) for path in (files.configuration, files.secret, *files.maps.iterdir())} == {0o600}
    assert {
        stat.S_IMODE(path.stat().st_mode) & 0o077
        for path in (files.folder, files.maps, files.worker, files.master, files.slow, files.inner)
    } == {0}
