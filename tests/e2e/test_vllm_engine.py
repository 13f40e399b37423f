"""A replica on real vLLM (CPU) with a tiny random model: protocol, dialect, guard, aborts, deaths. One server for most of it."""

import asyncio
import contextlib
import inspect
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import httpx
import openai
import pytest
import pytest_asyncio
import websockets
from huggingface_hub import AsyncInferenceClient

from cluster import spec
from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.diagnosis import StartFailed
from deployments.launcher import Launcher
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.server_process import session_members
from deployments.supervisor import Supervisor
from deployments.timing import Timing

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]
SECRET = "edge-secret-of-the-test"
HEADERS = {"X-Engine-Secret": SECRET}
ARGS = ("--kv-cache-memory-bytes", "64M", "--max-num-seqs", "8", "--enforce-eager")
ROUTE = re.compile(r"Route: (\S+), Methods: (.+)$")


async def until(condition, within=10.0):
    """Waits until `condition`, plain or awaitable, holds."""
    async with asyncio.timeout(within):
        while True:
            met = condition()
            if await met if inspect.isawaitable(met) else met:
                return
            await asyncio.sleep(0.02)


def read(path):
    """Nothing where the process has ended meanwhile."""
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def threads_named(pids, name):
    return [pid for pid in pids if name in read(f"/proc/{pid}/cmdline")]


class Site:
    def __init__(self, folder, launched=True):
        self.launched = launched
        self.home = folder / "home"
        self.model = folder / "models" / "llama"
        self.manager = MemoryManager(Bootstrap(SECRET, {"HF_TOKEN": "hf_secret_of_the_test"}))
        self.crashed = asyncio.Event()

    def supervisor(self, *args):
        environment = {**os.environ, "MOORAGE_HOME": str(self.home), "MOORAGE_MODEL_PATHS": str(self.model.parent)}
        replica = spec.ReplicaSpec(
            application="team--tiny--r1",
            namespace="team",
            endpoint="tiny",
            revision=1,
            engine="llm",
            model={"repository": str(self.model), "image": {"vLLM": {}}, "args": [*ARGS, *args]},
            load_timeout_s=600,
        )
        identity = ReplicaIdentity(replica.application, "replica-1")
        node = Node.from_environment(environment)
        timing = Timing(quiet=0.3, farewell=1.0)
        launcher = Launcher(node.launchers, environment, raylet=os.getpid()) if self.launched else None
        engine = engines.named("llm")
        return Supervisor(replica, identity, self.manager, node, engine, on_crash=self.crashed.set, launcher=launcher, timing=timing)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("vllm")
    command = [sys.executable, "-m", "deployments.tiny_models", "llama", str(made / "models" / "llama")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(folder):
    return Site(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replica(site):
    made = site.supervisor()
    await made.start()
    yield made
    await made.stop()


def url(replica):
    return "http://{}:{}".format(*replica.address)


@pytest_asyncio.fixture(loop_scope="module")
async def client(replica):
    async with openai.AsyncOpenAI(base_url=url(replica) + "/v1", api_key="unused", default_headers=HEADERS, max_retries=0) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def hugging_face(replica):
    async with AsyncInferenceClient(model=url(replica), token="unused", headers=HEADERS) as made:
        yield made


async def has_load(replica, load):
    return await replica.load() == load


async def test_replica_tells_its_phases_and_what_it_can_do(site, replica):
    await until(lambda: site.manager.phases[-1].name == "ready")
    told = [phase.name for phase in site.manager.phases]
    assert told == ["downloading", "starting", "importing", "loading", "warming", "smoke_test", "ready"]
    ready = site.manager.phases[-1].data
    assert ready["measured"]["cacheTokens"] > 0 and ready["measured"]["maxModelLen"] > 0, "vLLM's own words on its memory are understood"
    assert set(told[:-1]) | {"seconds", "measured"} == set(ready)
    assert sum(ready[name] for name in told[:-1]) == pytest.approx(ready["seconds"], abs=0.5)
    announced = site.manager.announcements[0]
    assert announced.max_concurrency == 8
    assert "generate" in announced.capabilities


async def test_chat_answers_under_the_name_that_was_asked_for(client):
    messages = [{"role": "user", "content": "hello"}]
    answer = await client.chat.completions.create(model="team/tiny", messages=messages, max_tokens=5, temperature=0)
    assert answer.model == "team/tiny"
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].message.content


async def test_stream_gives_the_same_text_as_the_whole_answer(client):
    asked = {"model": "x", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {"x"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_that_leaves_the_engine_nothing_to_write_is_refused_as_such(client, stream):
    asked = {"model": "any", "messages": [{"role": "user", "content": "hello"}], "stream": stream}

    async def whole():
        only = {"structured_outputs": {"regex": "[ab]+"}, "allowed_token_ids": [5, 6]}
        async for _ in await client.chat.completions.create(**asked, extra_body=only):
            pass

    with pytest.raises(openai.APIError, match="exclude each other") as refusal:
        await whole()
    assert refusal.value.body["code"] == 400


async def test_completion_respects_max_tokens(client):
    answer = await client.completions.create(model="tiny", prompt="def main():", max_tokens=4)
    assert answer.usage.completion_tokens == 4


async def test_inference_client_generates_text_plain_and_streamed(hugging_face):
    whole = await hugging_face.text_generation("import os", max_new_tokens=6)
    stream = await hugging_face.text_generation("import os", max_new_tokens=6, stream=True, details=True)
    events = [event async for event in stream]
    assert events[-1].generated_text == whole
    assert "".join(event.token.text for event in events) == whole
    assert events[-1].details.generated_tokens == 6
    assert all(event.token.logprob <= 0 for event in events if event.token.id)


async def test_inference_client_chats(hugging_face):
    answer = await hugging_face.chat_completion([{"role": "user", "content": "hello"}], max_tokens=3)
    assert answer.usage.completion_tokens == 3


async def test_stream_that_is_left_does_not_go_on_running(replica, client):
    stream = await client.completions.create(model="tiny", prompt="a", max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    await anext(stream)
    assert await replica.load() == 1
    await stream.close()
    await until(lambda: has_load(replica, 0), within=3)
    await replica.check()


async def test_an_engine_that_was_put_to_sleep_answers_the_next_request_as_before(replica, client):
    asked = {"model": "x", "prompt": "def main():", "max_tokens": 6, "temperature": 0}
    before = await client.completions.create(**asked)
    assert (await replica._client.sleep(60)).asleep
    await replica.check()
    assert [model.id async for model in await client.models.list()]
    assert (await replica._client.stats()).asleep
    after = await asyncio.gather(*(client.completions.create(**asked) for _ in range(4)))
    assert {answer.choices[0].text for answer in after} == {before.choices[0].text}
    seen = await replica._client.stats()
    assert not seen.asleep
    assert seen.woke_in_s > 0


@pytest_asyncio.fixture(loop_scope="module")
async def http(replica):
    async with httpx.AsyncClient(base_url=url(replica), headers=HEADERS, timeout=120) as made:
        yield made


class Metered:
    """Requests as the edge sends them, and what the manager was told of them."""

    def __init__(self, site, http):
        self._site, self._http = site, http
        self._names = []

    async def post(self, name, path, body, tenant="team"):
        self._names.append(name)
        return await self._http.post(path, json=body, headers=edge(name, tenant))

    @contextlib.asynccontextmanager
    async def stream(self, name, path, body, tenant="team"):
        self._names.append(name)
        async with self._http.stream("POST", path, json=body, headers=edge(name, tenant)) as answer:
            yield answer

    async def records(self):
        """Of all that was asked, by name."""
        await until(lambda: set(self._names) <= {record.id for _, record in self._site.manager.used})
        told = [record for _, record in self._site.manager.used if record.id in self._names]
        assert len(told) == len(self._names), "each is told once"
        return {record.id: record for record in told}

    async def counted(self):
        """vLLM's own counts since it started: (prompt tokens, tokens made)."""
        text = (await self._http.get("/metrics")).text
        return tuple(
            sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"vllm:{name}_tokens_total{{"))
            for name in ("prompt", "generation")
        )


def edge(name, tenant):
    return {"X-Request-Id": name} | ({"X-Moorage-Key-Id": f"key-of-{tenant}", "X-Moorage-Tenant": tenant} if tenant else {})


@pytest_asyncio.fixture(loop_scope="module")
async def metered(site, http):
    return Metered(site, http)


def says(text, **options):
    return {"model": "x", "messages": [{"role": "user", "content": text}], "ignore_eos": True, "max_tokens": 5, **options}


async def test_records_of_all_dialects_together_are_what_the_engine_itself_counted(replica, metered):
    prompt, made = await metered.counted()
    chat = (await metered.post("chat", "/v1/chat/completions", says("hello there", max_tokens=7))).json()
    async with metered.stream("stream", "/v1/chat/completions", says("hello", stream=True)) as answer:
        await answer.aread()
    async with metered.stream(
        "left", "/v1/completions", {"prompt": "hello", "max_tokens": 400, "stream": True, "ignore_eos": True}
    ) as answer:
        async for _ in answer.aiter_lines():
            break
    await until(lambda: has_load(replica, 0))
    await metered.post("two", "/v1/chat/completions", says("hello", n=2))
    await metered.post("list", "/v1/completions", {"prompt": ["hello", "good day"], "max_tokens": 3, "ignore_eos": True})
    await metered.post("responses", "/v1/responses", {"model": "x", "input": "hello", "max_output_tokens": 4})
    await metered.post("anthropic", "/v1/messages", {"model": "x", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
    await metered.post("face", "/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 4}})
    await metered.post("nova", "/api/v2/predict/generic", {"items": [{"id": "1", "value": "hi"}], "params": {"max_tokens_to_generate": 3}})
    await metered.post("bad", "/v1/chat/completions", {"model": "x", "messages": 7})
    records = await metered.records()

    usage = chat["usage"]
    assert (records["chat"].prompt_tokens, records["chat"].completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (records["chat"].key, records["chat"].tenant, records["chat"].model) == ("key-of-team", "team", "x")
    assert 0 < records["chat"].first_token_s <= records["chat"].total_s
    assert {name: record.outcome for name, record in records.items() if record.outcome != "finished"} == {
        "left": "aborted",
        "bad": "failed",
    }
    assert (records["bad"].status, records["bad"].prompt_tokens, records["bad"].completion_tokens) == (400, 0, 0)
    assert 1 <= records["left"].completion_tokens < 400
    assert records["two"].completion_tokens == 10
    assert records["list"].completion_tokens == 6
    assert records["face"].completion_tokens == 4

    after = await metered.counted()
    assert sum(record.completion_tokens for record in records.values()) == after[1] - made
    # The engine counts a prompt for each of its answers, and we once.
    assert sum(record.prompt_tokens for record in records.values()) + records["two"].prompt_tokens == after[0] - prompt


async def test_a_response_in_the_background_is_counted_when_the_engine_has_ended_it(http, metered):
    body = {"model": "x", "input": "hello", "max_output_tokens": 200, "background": True, "store": True}
    identity = (await metered.post("background", "/v1/responses", body)).json()["id"]
    record = (await metered.records())["background"]
    answer = (await http.get(f"/v1/responses/{identity}")).json()
    assert answer["status"] in ("completed", "incomplete")
    assert (record.prompt_tokens, record.completion_tokens) == (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])
    assert record.outcome == "finished"


async def test_the_prompt_of_a_beam_search_counts_once(metered):
    body = {"prompt": "hello there", "max_tokens": 3, "ignore_eos": True}
    await metered.post("plain", "/v1/completions", body)
    await metered.post("beams", "/v1/completions", body | {"n": 2, "use_beam_search": True, "temperature": 0})
    records = await metered.records()
    assert records["beams"].prompt_tokens == records["plain"].prompt_tokens
    assert records["beams"].completion_tokens >= 3


LONG = "the quick brown fox jumps over the lazy dog and " * 60


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "completions " + LONG, "max_tokens": 1}),
        ("/v1/chat/completions", says("chat " + LONG)),
        ("/v1/responses", {"model": "x", "input": "responses " + LONG, "max_output_tokens": 2}),
        ("/v1/messages", {"model": "x", "messages": [{"role": "user", "content": "messages " + LONG}], "max_tokens": 2}),
        ("/generate", {"inputs": "generate " + LONG, "parameters": {"max_new_tokens": 1}}),
    ],
)
async def test_a_prompt_is_found_in_the_cache_by_its_own_tenant_alone_whatever_salt_a_client_sends(metered, path, body):
    asked = {
        "first": ("team", {}),
        "again": ("team", {}),
        "salted": ("team", {"cache_salt": "mine"}),
        "odd": ("team", {"cache_salt": ["no", "string/@"]}),
        "rival": ("rival", {}),
        "guess": ("rival2", {"cache_salt": "mine"}),
        "nobody": ("", {}),
        "nobody-again": ("", {}),
    }
    statuses = [(await metered.post(name + path, path, body | more, tenant)).status_code for name, (tenant, more) in asked.items()]
    assert statuses == [200] * len(asked)
    cached = {name.partition("/")[0]: record.cached_tokens for name, record in (await metered.records()).items()}
    assert cached["again"] > 0
    assert cached == dict.fromkeys(asked, 0) | dict.fromkeys(("again", "salted", "odd", "nobody-again"), cached["again"])


async def test_every_route_of_the_engine_is_403_without_the_secret(site, replica):
    await until(lambda: any("startup complete" in line.text for line in site.manager.lines))
    routes = [match.groups() for line in site.manager.lines if (match := ROUTE.search(line.text))]
    assert len(routes) > 20
    async with httpx.AsyncClient(base_url=url(replica)) as http:
        for path, methods in [*routes, ("/", "POST"), ("/generate", "POST"), ("/nowhere", "GET")]:
            for method in methods.split(", "):
                assert (await http.request(method, path)).status_code == 403, (method, path)


async def test_websocket_is_refused_without_the_secret(replica):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(url(replica).replace("http", "ws") + "/v1/realtime")
    assert refused.value.response.status_code == 403


async def test_no_secret_is_on_a_command_line_or_inherited_by_the_engine_core(replica):
    members = session_members(replica.process.pid)
    (core,) = threads_named(members, "EngineCore")
    assert not any(SECRET in read(f"/proc/{pid}/cmdline") for pid in members)
    assert SECRET not in read(f"/proc/{core}/environ")


async def test_death_of_the_engine_core_is_a_crash_and_leaves_no_process(site, replica, client):
    stream = await client.completions.create(model="tiny", prompt="a", max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    await anext(stream)
    (core,) = threads_named(session_members(replica.process.pid), "EngineCore")
    os.kill(core, signal.SIGKILL)
    with contextlib.suppress(openai.APIError):
        async for _ in stream:
            pass
    async with asyncio.timeout(15):
        await site.crashed.wait()
    assert site.manager.phases[-1].reason == "EngineCrashed"
    assert session_members(replica.process.pid) == []


async def test_settings_that_only_the_model_can_refuse_fail_with_the_reason(site):
    refused = site.supervisor("--max-model-len", "999999")
    with pytest.raises(StartFailed) as raised:
        await refused.start()
    assert raised.value.reason == "InvalidSettings"
    assert raised.value.permanent
    assert "max_model_len" in raised.value.message
    assert str(site.home) not in raised.value.message
    assert session_members(refused.process.pid) == []


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_vllm_engine as suite

async def main():
    made = suite.Site(Path({folder!r}), launched={launched}).supervisor()
    starting = asyncio.create_task(made.start())
    await suite.until(lambda: made.process is not None, within=60)
    print(made.process.pid, flush=True)
    await starting

asyncio.run(main())
"""


@pytest.mark.parametrize("launched", [True, False], ids=["forked", "started"])
async def test_supervisor_that_is_killed_takes_the_starting_server_with_it(folder, launched):
    script = SUPERVISOR.format(tests=str(pathlib.Path(__file__).parent), folder=str(folder), launched=launched)
    with await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as running:
        leader = int(await asyncio.to_thread(running.stdout.readline))
        await until(lambda: threads_named(session_members(leader), "EngineCore"), within=420)
        running.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: session_members(leader) == [], within=10)
        assert time.monotonic() - killed < 5
