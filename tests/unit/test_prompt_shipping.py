"""The replica tells its server what to keep, and hands on what was kept, through absences of either side."""

import asyncio

import pytest
from support.edges import until

from cluster import messages
from deployments import prompt_shipping
from deployments.manager_port import ManagerUnavailable, MemoryManager
from deployments.server_client import NoAnswer

ON = messages.PromptPolicy(True, False, ("email",), 100)
OFF = messages.PromptPolicy()


class Server:
    """A server's control route, in memory."""

    def __init__(self):
        self.policies = []
        self.held = []
        self.away = False
        self.asked = 0

    async def tell_prompts(self, policy):
        self._reach()
        self.policies.append(policy)

    async def prompts(self):
        self._reach()
        self.asked += 1
        held, self.held = self.held, []
        return held

    def _reach(self):
        if self.away:
            raise NoAnswer


@pytest.fixture
def manager():
    return MemoryManager(messages.Bootstrap("secret"))


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def shipper(manager, server):
    return prompt_shipping.PromptShipper(manager, messages.ReplicaIdentity("app", "r1"), server, period_s=0)


def prompt(identity):
    return {"id": identity, "at": 1.0, "route": "/x", "prompt": "hello", "answer": None, "truncated": False}


def ids(manager):
    return [one.id for one in manager.prompts_kept]


async def test_without_a_wish_the_server_is_left_alone(shipper, server):
    await shipper.step()
    assert (server.policies, server.asked) == ([], 0)


async def test_the_policy_is_told_once_and_what_was_kept_handed_over(shipper, server, manager):
    shipper.order(ON)
    server.held = [prompt("a"), prompt("b")]
    await shipper.step()
    shipper.order(ON)
    await shipper.step()
    assert server.policies == [{"prompts": True, "answers": False, "redact": ("email",), "max_bytes": 100}]
    assert ids(manager) == ["a", "b"]


async def test_switched_off_the_server_is_told_and_nothing_more_is_handed_over(shipper, server, manager):
    shipper.order(ON)
    await shipper.step()
    server.held = [prompt("a")]
    shipper.order(OFF)
    await shipper.step()
    assert server.policies[-1]["prompts"] is False
    assert ids(manager) == []


async def test_what_a_manager_that_is_away_does_not_take_is_kept_for_it_and_bounded(shipper, server, manager, monkeypatch):
    shipper.order(ON)
    manager.reachable = False
    for number in range(3):
        server.held = [prompt(f"id-{number}")]
        with pytest.raises(ManagerUnavailable):
            await shipper.step()
    manager.reachable = True
    await shipper.step()
    assert ids(manager) == ["id-0", "id-1", "id-2"]


async def test_a_policy_that_could_not_be_told_is_told_again(shipper, server):
    shipper.order(ON)
    server.away = True
    with pytest.raises(NoAnswer):
        await shipper.step()
    server.away = False
    await shipper.step()
    assert len(server.policies) == 1


async def test_it_goes_on_through_absences_and_rests_while_it_is_off(shipper, server, manager):
    server.away = True
    running = asyncio.create_task(shipper.run())
    shipper.order(ON)
    await asyncio.sleep(0)
    server.away = False
    await until(lambda: server.asked >= 3)
    shipper.order(OFF)
    await until(lambda: not server.policies[-1]["prompts"])
    for _ in range(20):
        await asyncio.sleep(0)
    before = server.asked
    for _ in range(50):
        await asyncio.sleep(0)
    assert server.asked == before
    shipper.order(ON)
    await until(lambda: server.asked > before)
    running.cancel()
