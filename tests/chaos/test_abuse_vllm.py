"""A replica on real vLLM, given bodies, addresses and a template that break engines: it answers all of them and stays the same process."""

from __future__ import annotations

import asyncio
import collections
import copy
import os
import subprocess
import sys
import time

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.canary import Canary

from cluster import spec
from cluster.messages import Bootstrap, ReplicaIdentity
from deployments import engines
from deployments.diagnosis import StartFailed
from deployments.launcher import Launcher
from deployments.manager_port import MemoryManager
from deployments.node import Node
from deployments.supervisor import Supervisor
from deployments.timing import Timing

pytestmark = [pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000)]
SECRET = "edge-secret-of-the-test"
BODIES = int(os.environ.get("MOORAGE_TEST_BODIES", "10000"))
WITHOUT_END = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
EVIL_TEMPLATE = WITHOUT_END + "{{ messages[0].content }}"
SLY_TEMPLATE = "{% if messages[0].content == 'loop' %}" + WITHOUT_END + "{% endif %}{{ messages[0].content }}"
"""Does as it should when the server tries it."""


class Replica:
    """A supervised vLLM server of a tiny model."""

    def __init__(self, folder, chat_template: str | None = None) -> None:
        home, model = folder / "home", folder / "models" / "llama"
        environment = {**os.environ, "MOORAGE_HOME": str(home), "MOORAGE_MODEL_PATHS": str(model.parent)}
        args = ["--kv-cache-memory-bytes", "64M", "--max-num-seqs", "8", "--enforce-eager", "--max-model-len", "256"]
        tokenizer = {"chatTemplate": chat_template} if chat_template else {}
        replica = spec.ReplicaSpec(
            application="team--tiny--r1",
            namespace="team",
            endpoint="tiny",
            revision=1,
            engine="llm",
            model={"repository": str(model), "image": {"vLLM": {}}, "args": args, "settings": {"tokenizer": tokenizer}},
            load_timeout_s=600,
        )
        self.crashed = asyncio.Event()
        node = Node.from_environment(environment)
        self.supervisor = Supervisor(
            replica,
            ReplicaIdentity(replica.application, "replica-1"),
            MemoryManager(Bootstrap(SECRET, {})),
            node,
            engines.named("llm"),
            on_crash=self.crashed.set,
            launcher=Launcher(node.launchers, environment, raylet=os.getpid()),
            timing=Timing(quiet=0.3, farewell=1.0),
        )

    async def __aenter__(self):
        await self.supervisor.start()
        host, port = self.supervisor.address
        self.http = httpx.AsyncClient(base_url=f"http://{host}:{port}", headers={"X-Engine-Secret": SECRET}, timeout=120)
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()
        await self.supervisor.stop()

    async def chat(self, **fields) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **fields}
        return await self.http.post("/v1/chat/completions", json=body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("vllm")
    words = [sys.executable, "-m", "deployments.tiny_models", "llama", str(made / "models" / "llama")]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replica(folder):
    async with Replica(folder) as made:
        yield made


GOOD = {
    "model": "tiny",
    "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}],
    "max_tokens": 3,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "n": 1,
    "stop": ["x"],
    "seed": 1,
    "logprobs": True,
    "top_logprobs": 1,
    "logit_bias": {"5": 1.0},
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "min_tokens": 0,
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
    "structured_outputs": {"regex": "[ab]+"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "none",
    "chat_template_kwargs": {},
    "bad_words": [],
    "allowed_token_ids": [5, 6],
    "prompt_logprobs": 0,
    "truncate_prompt_tokens": 10,
    "user": "u",
}
ODD = [
    None,
    True,
    -1,
    0,
    1,
    3.5,
    10**6,
    2**31,
    2**63,
    2**64,
    -(2**63),
    1e308,
    "",
    "x",
    "é\ud7ff",
    "\0",
    "auto",
    "required",
    [],
    {},
    [[]],
    [None],
]
ODD += [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}, {"regex": "(" * 50}]
ODD += [
    {"json": {"$ref": "#"}},
    {"grammar": "root ::= root"},
    {"choice": []},
    [{"role": "tool", "content": None}],
    [-1],
    [10**9],
    {"5": 1e9},
]
VALUES = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
EXTRA = [
    *GOOD,
    "prompt_embeds",
    "cache_salt",
    "kv_transfer_params",
    "priority",
    "vllm_xargs",
    "mm_processor_kwargs",
    "best_of",
    "echo",
    "stream",
]
EXTRA += [
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "include_reasoning",
    "reasoning_effort",
    "min_p",
    "length_penalty",
]


@st.composite
def mutated(draw):
    """A chat body with a few fields taken away, changed or added."""
    body = copy.deepcopy(GOOD)
    for name in draw(st.lists(st.sampled_from(sorted(GOOD)), max_size=20)):
        body.pop(name, None)
    for name in draw(st.lists(st.sampled_from(EXTRA), min_size=1, max_size=4)):
        body[name] = draw(VALUES)
    # How long an engine may work for one request is no matter of its parser.
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] > 5:
        body["max_tokens"] = 3
    return body


def made_up(count: int) -> list[dict]:
    """So many bodies."""
    found: list[dict] = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=mutated())
    def take(body) -> None:
        found.append(body)

    take()
    return found


async def test_ten_thousand_mutated_chat_bodies_break_nothing(replica, record):
    """H10: past the edge's own checks, to vLLM itself."""
    bodies = made_up(BODIES)
    server = replica.supervisor.address
    failed: list[tuple[int, dict, str]] = []
    waiting = iter(bodies)

    async def work() -> None:
        for body in waiting:
            answer = await replica.http.post("/v1/chat/completions", json=body)
            broken = answer.status_code >= 500 or (answer.status_code == 200 and b'"code":500' in answer.content.replace(b" ", b""))
            if broken:
                failed.append((answer.status_code, body, answer.text[:300]))

    await asyncio.gather(*(work() for _ in range(8)))
    told = collections.Counter(text for _, _, text in failed).most_common(10)
    record("H10 mutated bodies answered with a server error", len(failed), 0, unit="answers", note=f"of {len(bodies)}; {told}")
    assert not replica.crashed.is_set() and replica.supervisor.address == server
    assert (await replica.chat()).status_code == 200


def addresses(port: int) -> list[str]:
    """Ways to write an address of the canary, and of what must not be asked for."""
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "[::1]"]
    hosts += [
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "127.0.0.1.",
        "localhost.",
        "LOCALHOST",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
    ]
    hosts += [
        "media.invalid@127.0.0.1",
        "media.invalid:80@127.0.0.1",
        "media.invalid\\@127.0.0.1",
        "127.0.0.1#@media.invalid",
        "127.0.0.1?@media.invalid",
    ]
    found = [f"{scheme}://{host}:{port}/x.png" for host in hosts for scheme in ("http", "https")]
    found += [
        f"http://media.invalid:{port}/x",
        f"http://media.invalid@localhost:{port}",
        f"HTTP://127.0.0.1:{port}/",
        f" http://127.0.0.1:{port}/",
    ]
    found += [
        f"http:\\\\127.0.0.1:{port}\\x",
        f"http:/127.0.0.1:{port}/x",
        f"http:127.0.0.1:{port}",
        f"//127.0.0.1:{port}/x",
        f"\thttp://127.0.0.1:{port}",
    ]
    found += [f"ftp://127.0.0.1:{port}/x", f"gopher://127.0.0.1:{port}/_GET", f"dict://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/"]
    found += [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "file:/etc/passwd",
        "/etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
    ]
    return [
        *found,
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.google.internal/",
        "jar:http://127.0.0.1!/x",
        "data:image/png;base64,!!!",
    ]


async def test_no_address_in_a_request_makes_an_engine_ask_for_it(replica, record):
    """H7: pictures, videos and sounds; answered with a 4xx, and the canary hears nothing."""
    asked = 0
    wrong = []
    with Canary() as canary:
        for url in addresses(canary.port):
            for kind in ("image_url", "video_url", "audio_url"):
                content = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": url}}]
                answer = await replica.chat(messages=[{"role": "user", "content": content}])
                asked += 1
                if not 400 <= answer.status_code < 500 or "root:" in answer.text:
                    wrong.append((kind, url, answer.status_code, answer.text[:100]))
        record("H7 connections to a canary by media addresses", canary.connections, 0, unit="connections", note=f"{asked} requests")
    record("H7 media addresses not answered with a 4xx", len(wrong), 0, unit="answers", note=str(wrong[:5]))


async def test_a_gzip_bomb_is_not_unfolded_by_the_engine(replica, record):
    """H2: `Content-Encoding: gzip` means nothing to it."""
    answer = await replica.http.post(
        "/v1/chat/completions", content=b"\x1f\x8b" + b"\0" * 1000, headers={"content-encoding": "gzip", "content-type": "application/json"}
    )
    assert 400 <= answer.status_code < 500, answer.text


async def test_a_model_whose_chat_template_has_no_end_is_refused_with_that_reason(folder, record):
    """H8: its server tries the template before it serves."""
    began = time.monotonic()
    with pytest.raises(StartFailed) as refusal:
        async with Replica(folder, EVIL_TEMPLATE):
            pytest.fail("a server with such a template does not start")
    seconds, told = time.monotonic() - began, refusal.value
    record("H8 time until a model with an endless chat template is refused", seconds, 60, unit="s", note=str(told))
    assert (told.reason, told.permanent) == ("EndlessChatTemplate", True)


async def test_a_chat_template_that_has_no_end_for_some_costs_their_requests_only(folder, record):
    """H8: such chat requests are refused in bounded time, all others are answered meanwhile, and the server can be stopped."""
    async with Replica(folder, SLY_TEMPLATE) as sly:
        began = time.monotonic()
        looping = [asyncio.create_task(sly.chat(messages=[{"role": "user", "content": "loop"}])) for _ in range(3)]
        others = 0
        while not all(task.done() for task in looping):
            other = await sly.http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": 1}, timeout=60)
            assert other.status_code == 200, other.text
            others += 1
        answers = [(task.result().status_code, task.result().text[:120]) for task in looping]
        record("H8 time until requests that loop in a chat template are refused", time.monotonic() - began, 60, unit="s", note=str(answers))
        assert all(400 <= status < 500 for status, _ in answers), answers
        assert others > 0
        assert (await sly.chat()).status_code == 200
        stopping = time.monotonic()
    record("H8 time to stop such a server", time.monotonic() - stopping, 30, unit="s")
    assert not sly.crashed.is_set()
