"""What bare vLLM answers, Moorage answers: body for body, apart from ids and times, streamed or not, refusals included."""

import contextlib
import json
import os
import subprocess
import sys

import httpx
import pytest
from support.platforms import free_ports, until
from support.vllm import CHAT_ARGS, LORA

from deployments import vllm_api

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Say something."}]
GREEDY = {"model": "tiny-chat", "temperature": 0, "max_tokens": 8}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"n": 3}}\n</tool_call>'
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
REQUESTS = {
    "chat": (CHAT, {"messages": HELLO}),
    "chat of several turns": (
        CHAT,
        {"messages": [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "No."}, *HELLO]},
    ),
    "chat with content parts": (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Say something."}]}]}),
    "two answers": (CHAT, {"messages": HELLO, "n": 2, "temperature": 1, "seed": 7}),
    "logprobs": (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 2}),
    "a stop sequence": (CHAT, {"messages": HELLO, "stop": ["e"]}),
    "a tool": (CHAT, {"messages": HELLO, "tools": [TOOL], "structured_outputs": {"choice": [CALL]}, "max_tokens": 60}),
    "a schema": (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}),
    "completions": (TEXT, {"prompt": "Once upon"}),
    "several prompts": (TEXT, {"prompt": ["Once", "upon"]}),
    "echo and logprobs": (TEXT, {"prompt": "Once upon", "echo": True, "logprobs": 2}),
    "token ids": (TEXT, {"prompt": [5, 6, 7], "return_token_ids": True}),
    "responses": ("/v1/responses", {"input": "hello", "max_output_tokens": 8, "max_tokens": None}),
    "messages": ("/v1/messages", {"messages": HELLO}),
    "counted tokens": ("/v1/messages/count_tokens", {"messages": HELLO, "max_tokens": None, "temperature": None}),
    "tokenize": ("/tokenize", {"prompt": "Once upon", "max_tokens": None, "temperature": None}),
    "detokenize": ("/detokenize", {"tokens": [5, 6, 7], "max_tokens": None, "temperature": None}),
    "a temperature below zero": (CHAT, {"messages": HELLO, "temperature": -1}),
    "too many tokens": (CHAT, {"messages": HELLO, "max_tokens": 100_000}),
    "no messages": (CHAT, {}),
    "a role that is none": (CHAT, {"messages": [{"role": 7, "content": "x"}]}),
    "a field of the wrong type": (TEXT, {"prompt": {"a": 1}}),
    "a model name of another type": (CHAT, {"messages": HELLO, "model": 5}),
    "a tool that is none": (CHAT, {"messages": HELLO, "tools": [{"type": "x"}]}),
    "messages without a bound": ("/v1/messages", {"messages": HELLO, "max_tokens": None}),
    "a response that nobody keeps": ("/v1/responses", {"input": "x", "previous_response_id": f"resp_none_{'0' * 32}", "max_tokens": None}),
}
STREAMED = ("chat", "two answers", "logprobs", "a stop sequence", "a tool", "completions", "several prompts", "responses", "messages")
RAW = {"no JSON": b"{", "a list": b"[]", "nothing": b"", "no UTF-8": b'{"model": "\xff"}'}

IDS = {
    "id",
    "item_id",
    "created",
    "created_at",
    "completed_at",
    "request_id",
    "response_id",
    "cached_tokens",
    "system_fingerprint",
    "sequence_number",
}
"""What differs between two servers, and between two calls of one."""
GROWING = {"text", "content", "delta", "arguments", "partial_json"}
"""What the events of a stream give in pieces."""
ELSEWHERE = {"/tokenize": "/v1/tokenize", "/detokenize": "/v1/detokenize"}


@pytest.fixture(scope="module")
def bare(chat_endpoint, models, tmp_path_factory):
    """vLLM's own server with what the endpoint's engine gets from its user, as an httpx client."""
    (port,), folder = free_ports(1), tmp_path_factory.mktemp("bare")
    words = ["--model", str(models("llama")), "--served-model-name", "tiny-chat", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--max-model-len", "512", "--max-num-seqs", "8", "--runner", "generate", "--kv-cache-memory-bytes", str(256 << 20)]
    words += ["--distributed-executor-backend", vllm_api.UNIPROC_EXECUTOR, "--enable-prompt-tokens-details", *LORA, *CHAT_ARGS]
    environment = os.environ | {
        "VLLM_PLUGINS": "",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": "127.0.0.1",
    }
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_RESPONSES_API_STORE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", vllm_api.SERVER, *words], env=environment, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)

    def ready():
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health").status_code == 200

    until(ready, 300, what="bare vLLM answers")
    yield client
    client.close()
    process.terminate()
    process.wait(60)


@pytest.fixture
def moorage(chat_endpoint):
    platform, name = chat_endpoint
    with httpx.Client(base_url=f"{platform.url}/endpoints/admin/{name}", timeout=120) as client:
        client.headers["authorization"] = f"Bearer {platform.token}"
        yield client


def without_ids(value):
    """`value` without what differs between two servers."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in IDS}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def near(value):
    """Equal to `value` with numbers as near as the order of a sum lets them be."""
    if isinstance(value, dict):
        return {key: near(item) for key, item in value.items()}
    if isinstance(value, list):
        return [near(item) for item in value]
    return pytest.approx(value, rel=0.02, abs=0.02) if isinstance(value, float) else value


def events(answer):
    """The events of a stream: JSON where they are, and how it ended."""
    lines = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def said(found):
    """What a stream says, by kind of event and choice, however its tokens were bundled into events."""
    whole = {}
    for event in found:
        choices = event.get("choices") if isinstance(event, dict) else None
        kind = event if isinstance(event, str) else (event.get("type", "chunk"), choices[0]["index"] if choices else None)
        whole[kind] = added(whole.get(kind), without_ids(event))
    return whole


def added(one, other, name=""):
    """Both, one after the other: texts and lists of tokens grow, of everything else the last counts."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: added(one.get(key), other.get(key), key) for key in one.keys() | other.keys()}
    if name in ("choices", "tool_calls") and one and other:
        return [added(one[0], other[0])]
    if name in GROWING and one is not None and type(one) is type(other):
        return one + other
    return one if other is None else other


def body_of(fields):
    return {name: value for name, value in {**GREEDY, **fields}.items() if value is not None}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_is_bare_vllms(bare, moorage, name):
    route, fields = REQUESTS[name]
    expected = bare.post(route, json=body_of(fields))
    answer = moorage.post(ELSEWHERE.get(route, route), json=body_of(fields))
    assert answer.status_code == expected.status_code, answer.text
    assert answer.headers["content-type"] == expected.headers["content-type"]
    assert without_ids(answer.json()) == near(without_ids(expected.json()))


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_is_bare_vllms(bare, moorage, name):
    route, fields = REQUESTS[name]
    body = body_of({**fields, "stream": True}) | ({"stream_options": {"include_usage": True}} if route in (CHAT, TEXT) else {})
    expected, answer = bare.post(route, json=body), moorage.post(route, json=body)
    assert answer.status_code == expected.status_code, answer.text
    assert answer.headers["content-type"] == expected.headers["content-type"]
    assert said(events(answer)) == near(said(events(expected)))
    assert answer.text.rstrip().splitlines()[-1].startswith("data:") == expected.text.rstrip().splitlines()[-1].startswith("data:")


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("route", [CHAT, TEXT, "/v1/responses"])
def test_what_is_no_request_is_refused_as_bare_vllm_does(bare, moorage, name, route):
    expected, answer = (client.post(route, content=RAW[name], headers={"content-type": "application/json"}) for client in (bare, moorage))
    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())
