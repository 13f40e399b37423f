"""What a gateway counts for the manager: answers by replica and status, how long they took, what runs and what waits."""

from __future__ import annotations

import asyncio
import collections

from support.edges import until

CHAT = "/endpoints/acme/chat-one/v1/chat/completions"


def counted(world):
    """(replica, status) -> answers, of every report so far."""
    found = collections.Counter()
    for report in world.manager.reports:
        for row in report.answers:
            assert row.endpoint == "acme/chat-one"
            found[row.replica, row.status] += row.count
    return found


async def test_answers_are_counted_by_replica_and_status_with_what_the_edge_refused(world, engines, endpoint):
    one = await engines("one")
    key = await world.key()
    await world.publish(endpoint("chat-one", one))
    one.work = 0.2
    for _ in range(3):
        async with world.post(CHAT, key) as answer:
            assert answer.status == 200
    async with world.post(CHAT) as answer:
        assert answer.status == 401
    async with world.post("/endpoints/acme/no-such-one/v1/chat/completions", key) as answer:
        assert answer.status == 404
    await until(lambda: counted(world).total() == 4)
    assert counted(world) == {("one-1", 200): 3, ("", 401): 1}
    served = [row for report in world.manager.reports for row in report.answers if row.replica]
    assert sum(row.seconds_sum for row in served) >= 0.6 and sum(sum(row.seconds.values()) for row in served) == 3


async def test_what_runs_at_replicas_is_told_apart_from_what_waits(world, engines, endpoint):
    one = await engines("one")
    key = await world.key()
    row = endpoint("chat-one", one, replicas=(one.replica(max_concurrency=2),))
    await world.publish(row)
    one.ticks, one.pause = 400, 0.02
    tasks = [asyncio.create_task(read(world, key)) for _ in range(5)]
    await until(
        lambda: any(seen.active.get(row.path) == 5 and seen.running.get(row.path) == {"one-1": 2} for seen in world.manager.reports)
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: world.manager.reports[-1].running == {})


async def read(world, key):
    async with world.post(CHAT, key, {"stream": True}) as answer:
        await answer.read()


async def test_counts_go_on_over_a_reload_a_restart_of_haproxy_and_a_manager_that_was_away(world, engines, endpoint):
    one = await engines("one")
    key = await world.key()
    await world.publish(endpoint("chat-one", one))

    async def ask():
        # What a worker answers after its reload is neither logged nor counted: its client comes again by a new connection.
        async with world.post(CHAT, key, headers={"Connection": "close"}) as answer:
            return answer.status == 200

    assert await ask()
    await until(lambda: counted(world)["one-1", 200] == 1)
    held = await world.edge._haproxy.runtime.held(world.edge._haproxy.map_files)
    await world.edge._haproxy.reload(held)
    assert await ask()
    await until(lambda: counted(world)["one-1", 200] == 2)
    world.manager.away = True
    assert await ask()
    world.manager.away = False
    await until(lambda: counted(world)["one-1", 200] == 3)
    await world.edge._haproxy.stop(grace=0)
    await until(lambda: world.edge._haproxy.pid is not None)

    async def again():
        try:
            return await ask()
        except OSError:
            return False

    await until(again)
    await until(lambda: counted(world)["one-1", 200] == 4)
    assert counted(world)["one-1", 200] == 4
