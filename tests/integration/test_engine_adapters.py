"""Adapters of a replica on the echo engine: real server processes, a stock client, the manager's in-memory twin."""

import asyncio
import os

import httpx
import openai
import pytest
from support.adapters import write_adapter

from cluster import spec
from cluster.messages import Adapter, Adapters, AdapterState, Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.supervisor import Supervisor
from deployments.timing import Timing

SECRET = "edge-secret-of-the-test"
HEADERS = {"X-Engine-Secret": SECRET}
TIMING = Timing(quiet=0.1, heartbeat=5.0, retry=0.1, farewell=1.0)


async def until(condition, within=10.0):
    """Waits until `condition` holds."""
    async with asyncio.timeout(within):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Stack:
    """One replica with adapters on disk."""

    def __init__(self, folder):
        self.folder = folder
        self.manager = MemoryManager(Bootstrap(SECRET, {}))
        self.replica = None

    def adapter(self, name, **files):
        return Adapter(name, str(write_adapter(self.folder / "models" / name, **files)))

    def order(self, *adapters, retired=()):
        self.manager.order(Adapters(tuple(adapters), tuple(retired)))

    async def start(self, lora=True, **image):
        model = {"image": {"echo": image}, "settings": {"llm": {"enableLora": lora, "maxLoraRank": 32}}}
        fields = {"application": "team--chat--r1", "namespace": "team", "endpoint": "chat", "revision": 1, "engine": "echo"}
        replica = spec.ReplicaSpec(**fields, model=model, drain_timeout_s=5.0)
        node = Node.from_environment(
            {**os.environ, "MOORAGE_HOME": str(self.folder / "home"), "MOORAGE_MODEL_PATHS": str(self.folder / "models")}
        )
        identity = ReplicaIdentity(replica.application, "replica-1")
        engine = engines.named("echo")
        self.replica = Supervisor(replica, identity, self.manager, node, engine, on_crash=lambda: None, timing=TIMING)
        await self.replica.start()
        return self

    @property
    def url(self):
        return "http://{}:{}".format(*self.replica.address)

    def client(self):
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key="unused", default_headers=HEADERS, max_retries=0)

    async def say(self, model, text="hello there", **options):
        async with self.client() as client:
            return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)

    async def text(self, model):
        return (await self.say(model)).choices[0].message.content

    def states(self):
        return {state.adapter.name: state.state for state in self.manager.announcements[-1].adapters} if self.manager.announcements else {}

    async def until(self, **states):
        await until(lambda: self.states() == states)

    def events(self):
        return [(phase.name, phase.data["adapter"], phase.reason) for phase in self.manager.phases if "adapter" in phase.data]


@pytest.fixture
async def stack(tmp_path):
    made = Stack(tmp_path)
    yield made
    if made.replica is not None:
        await made.replica.stop()


async def test_a_replica_is_announced_with_its_adapters_loaded_or_failed_and_never_before(stack):
    slow = stack.adapter("slow", echo={"load_seconds": 0.3})
    bad = stack.adapter("bad", rank=64)
    broken = stack.adapter("broken", echo={"failure": "told to fail"})
    stack.order(slow, bad, broken)
    await stack.start()
    assert {state.adapter.name: (state.state, state.reason) for state in stack.manager.announcements[0].adapters} == {
        "slow": ("ready", ""),
        "bad": ("failed", "RankTooHigh"),
        "broken": ("failed", "LoadFailed"),
    }
    names = [phase.name for phase in stack.manager.phases]
    assert names[:3] == ["starting", "smoke_test", "adapters"]
    assert await stack.text("chat:slow") == "<slow> hello there"
    with pytest.raises(openai.InternalServerError, match="maxLoraRank to 64"):
        await stack.say("bad")
    with pytest.raises(openai.InternalServerError, match="told to fail"):
        await stack.say("broken")


async def test_an_adapter_comes_and_goes_while_streams_run(stack):
    await stack.start(tokensPerSecond=40)
    words = " ".join(f"w{number}" for number in range(40))
    async with stack.client() as client:
        asked = {"messages": [{"role": "user", "content": words}], "stream": True}
        base = await client.chat.completions.create(model="chat", **asked)
        await anext(base)
        stack.order(stack.adapter("style"))
        await stack.until(style="ready")
        assert (await stack.say("style", max_tokens=1)).choices[0].message.content == "<style>"
        styled = await client.chat.completions.create(model="team/chat:style", **asked)
        await anext(styled)
        stack.order(retired=["style"])
        await stack.until()
        for model in ("style", "chat:style"):
            with pytest.raises(openai.NotFoundError) as refusal:
                await stack.say(model, max_tokens=1)
            assert refusal.value.code == "model_not_found"
        chunks = [chunk async for chunk in styled]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"<style> {words}"
        assert {chunk.model for chunk in chunks} == {"team/chat:style"}
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in base]) == words
    assert [event[:2] for event in stack.events()] == [("adapter_ready", "style"), ("adapter_removed", "style")]


async def test_an_adapter_on_its_way_is_neither_answered_by_the_base_model_nor_unknown(stack):
    await stack.start()
    stack.order(stack.adapter("style", echo={"load_seconds": 1.0}))
    await stack.until(style="pending")
    with pytest.raises(openai.InternalServerError) as refusal:
        await stack.say("style")
    assert (refusal.value.status_code, refusal.value.code, refusal.value.response.headers["retry-after"]) == (503, "starting", "2")
    assert await stack.text("anything") == "hello there"
    await stack.until(style="ready")
    assert await stack.text("style") == "<style> hello there"


async def test_an_adapter_that_is_taken_back_while_it_loads_is_gone_and_can_come_again(stack):
    await stack.start()
    slow = stack.adapter("style", echo={"load_seconds": 0.5})
    stack.order(slow)
    await stack.until(style="pending")
    stack.order(retired=["style"])
    await stack.until()
    stack.order(slow)
    await stack.until(style="ready")
    assert await stack.text("style") == "<style> hello there"


async def test_another_adapter_under_the_same_name_takes_its_place(stack):
    await stack.start()
    stack.order(stack.adapter("style"))
    await stack.until(style="ready")
    wanted = Adapter("style", stack.adapter("other").repository)
    stack.order(wanted)
    await until(lambda: [state for state in stack.manager.announcements[-1].adapters if state == AdapterState(wanted, "ready")])
    assert await stack.text("style") == "<style> hello there"


async def test_an_engine_without_lora_refuses_their_names_too(stack):
    await stack.start(lora=False)
    stack.order(stack.adapter("style"))
    await stack.until(style="pending")
    with pytest.raises(openai.InternalServerError) as refusal:
        await stack.say("style")
    assert refusal.value.code == "starting"


async def test_folders_that_are_not_allowed_and_weights_that_are_pickles_fail_with_their_reason(stack, tmp_path):
    await stack.start()
    outside = write_adapter(tmp_path / "outside")
    stack.order(Adapter("outside", str(outside)), stack.adapter("pickled", weights="adapter_model.bin"))
    await stack.until(outside="failed", pickled="failed")
    assert {state.adapter.name: state.reason for state in stack.manager.announcements[-1].adapters} == {
        "outside": "PathNotAllowed",
        "pickled": "PickleRefused",
    }
    assert sorted(stack.events()) == [("adapter_failed", "outside", "PathNotAllowed"), ("adapter_failed", "pickled", "PickleRefused")]


async def test_loading_is_the_supervisors_alone(stack):
    await stack.start()
    async with httpx.AsyncClient(base_url=stack.url, headers=HEADERS) as http:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/_moorage/adapters"):
            assert (await http.post(path, json={"lora_name": "x", "lora_path": "/etc"})).status_code == 403
        stack.order(stack.adapter("style"))
        await stack.until(style="ready")
        listed = (await http.get("/v1/models")).json()["data"]
        assert [(model["id"], model.get("parent")) for model in listed] == [("chat", None), ("chat:style", "chat")]
        french = {"inputs": "bonjour", "parameters": {"adapter_id": "style", "max_new_tokens": 2}}
        assert (await http.post("/generate", json=french)).json()["generated_text"] == "<style> bonjour"
        assert (await http.post("/generate", json={"inputs": "x", "parameters": {"adapter_id": "none"}})).status_code == 404
