"""Whole replicas on the echo engine: real server processes and the manager's in-memory twin."""

import asyncio
import contextlib
import inspect
import os
import pathlib

import httpx
import openai
from huggingface_hub import AsyncInferenceClient

from cluster import spec
from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.supervisor import Supervisor
from deployments.timing import Timing

SECRET = "edge-secret-of-the-test"
HEADERS = {"X-Engine-Secret": SECRET}
TIMING = Timing(quiet=0.3, heartbeat=0.2, retry=0.1, farewell=1.0)


async def until(condition, within=10.0):
    """Waits until `condition`, plain or awaitable, holds."""
    async with asyncio.timeout(within):
        while True:
            met = condition()
            if await met if inspect.isawaitable(met) else met:
                return
            await asyncio.sleep(0.01)


def command_line(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_text()


class Replicas:
    """Makes supervisors of echo replicas and ends them."""

    def __init__(self, home):
        self.manager = MemoryManager(Bootstrap(SECRET, {"HF_TOKEN": "hf_secret_of_the_test"}))
        self.crashed = asyncio.Event()
        self._node = Node.from_environment({**os.environ, "MOORAGE_HOME": str(home)})
        self._made = []
        self._clients = contextlib.AsyncExitStack()

    def make(self, *, task="text-generation", drain_timeout_s=20.0, load_timeout_s=60.0, engine=None, system=None, **image):
        replica = spec.ReplicaSpec(
            application="team--echo--r1",
            namespace="team",
            endpoint="echo",
            revision=1,
            engine="echo",
            task=task,
            model={"repository": "team/model", "image": {"echo": image}, "settings": {"system": system or {}}},
            drain_timeout_s=drain_timeout_s,
            load_timeout_s=load_timeout_s,
        )
        identity = ReplicaIdentity(replica.application, f"replica-{len(self._made)}")
        engine = engine or engines.named("echo")
        made = Supervisor(replica, identity, self.manager, self._node, engine, on_crash=self.crashed.set, timing=TIMING)
        self._made.append(made)
        return made

    async def start(self, **options):
        made = self.make(**options)
        await made.start()
        return made

    def names(self):
        return [phase.name for phase in self.manager.phases]

    async def openai(self, replica):
        made = openai.AsyncOpenAI(base_url=url(replica) + "/v1", api_key="unused", default_headers=HEADERS, max_retries=0)
        return await self._clients.enter_async_context(made)

    async def hugging_face(self, replica):
        return await self._clients.enter_async_context(AsyncInferenceClient(model=url(replica), token="unused", headers=HEADERS))

    async def http(self, replica, headers=HEADERS):
        return await self._clients.enter_async_context(httpx.AsyncClient(base_url=url(replica), headers=headers))

    async def end(self):
        await self._clients.aclose()
        for made in self._made:
            made.replica = made.replica.model_copy(update={"drain_timeout_s": 0.0})
            await made.stop()


async def has_status(http, path, status):
    return (await http.get(path)).status_code == status


async def has_load(replica, load):
    return await replica.load() == load


def url(replica):
    return "http://{}:{}".format(*replica.address)


def ask(text, **options):
    return {"model": "any", "messages": [{"role": "user", "content": text}], **options}
