"""The openai client against real vLLM behind the edge."""

import asyncio
import base64
import io
import json
import re
import time

import aiohttp
import openai
import pytest
from PIL import Image
from support.canary import Canary
from support.platforms import until

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def client(chat_endpoint):
    platform, name = chat_endpoint
    return openai.OpenAI(base_url=f"{platform.url}/endpoints/admin/{name}/v1", api_key=platform.token, max_retries=0, timeout=120)


def test_openai_chat_streaming_and_not(client):
    answer = client.chat.completions.create(model="anything", messages=MESSAGES, max_tokens=12, temperature=0, seed=1)
    assert answer.usage.completion_tokens > 0
    assert answer.choices[0].message.content
    chunks = list(
        client.chat.completions.create(
            model="anything", messages=MESSAGES, max_tokens=12, temperature=0, seed=1, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_the_answer_names_the_model_that_was_asked_for(client):
    assert client.chat.completions.create(model="tgi", messages=MESSAGES, max_tokens=1).model == "tgi"


def test_openai_completions_and_models(client, chat_endpoint):
    platform, name = chat_endpoint
    assert client.completions.create(model="x", prompt="def main", max_tokens=5).choices[0].text
    assert name in {model.id for model in client.models.list()}
    shared = openai.OpenAI(base_url=f"{platform.url}/v1", api_key=platform.token)
    assert shared.chat.completions.create(model=name, messages=MESSAGES, max_tokens=2).choices


def test_a_stored_response_is_found_again_goes_on_and_can_be_cancelled(client, chat_endpoint):
    first = client.responses.create(model="x", input="hello", max_output_tokens=4)
    assert client.responses.retrieve(first.id).output == first.output
    assert client.responses.create(model="x", input="more", max_output_tokens=4, previous_response_id=first.id).output
    long = client.responses.create(model="x", input="hello", max_output_tokens=400, background=True, extra_body={"ignore_eos": True})
    assert client.responses.cancel(long.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(f"resp_none_{'0' * 32}")


def test_the_model_calls_a_tool(client):
    said = '<tool_call>\n{"name": "get_weather", "arguments": {"n": 3}}\n</tool_call>'
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    }
    asked = {"model": "x", "messages": MESSAGES, "tools": [tool], "extra_body": {"structured_outputs": {"choice": [said]}}}
    (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"n": 3})
    pieces = [chunk.choices[0].delta.tool_calls for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices]
    assert json.loads("".join(piece[0].function.arguments or "" for piece in pieces if piece)) == {"n": 3}


def test_the_output_follows_a_schema(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    answer = client.chat.completions.create(model="x", messages=MESSAGES, max_tokens=60, temperature=1, seed=2, response_format=form)
    text = answer.choices[0].message.content
    assert re.match(r'\{"n": ?-?\d', text), text


def picture(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]}]


def test_pictures_come_in_the_request_and_never_from_inside_the_network(served):
    png = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(png, "png")
    with (
        served("vision", "image-text-to-text", args=["--limit-mm-per-prompt", '{"image":1}']) as (platform, name),
        Canary() as canary,
    ):
        client = openai.OpenAI(base_url=f"{platform.url}/endpoints/admin/{name}/v1", api_key=platform.token, max_retries=0, timeout=120)
        data = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        answer = client.chat.completions.create(model="x", messages=picture(data), max_tokens=4)
        assert answer.usage.prompt_tokens > 8
        # The one host that the operator allows leads inside; the other is not allowed.
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)):
                client.chat.completions.create(model="x", messages=picture(f"http://{host}:{canary.port}/secret.png"), max_tokens=1)
        assert canary.connections == 0


def test_errors_of_the_engine_pass_unchanged(client):
    with pytest.raises(openai.BadRequestError, match="max"):
        client.chat.completions.create(model="x", messages=MESSAGES, max_tokens=100_000)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="x", messages=MESSAGES, temperature=-3)


def test_when_clients_leave_vllm_stops_generating_within_two_seconds(chat_endpoint):
    platform, name = chat_endpoint
    body = {"model": name, "messages": MESSAGES, "stream": True, "max_tokens": 450, "ignore_eos": True}
    headers = {"authorization": f"Bearer {platform.token}"}

    def running():
        return platform.manage("GET", f"/{name}/metrics").json()["running"]

    async def leave_early():
        async with aiohttp.ClientSession(headers=headers) as session:
            answers = []
            for _ in range(6):
                answer = await session.post(f"{platform.url}/endpoints/admin/{name}/v1/chat/completions", json=body)
                await answer.content.readany()
                answers.append(answer)
            seen = await asyncio.to_thread(running)
            for answer in answers:
                answer.close()
            return seen

    assert asyncio.run(leave_early()) > 0
    left = time.monotonic()
    until(lambda: running() == 0, 10, what="vLLM is idle")
    assert time.monotonic() - left < 2


def test_an_unknown_flag_is_refused_by_its_name_and_nothing_changes(chat_endpoint):
    platform, name = chat_endpoint
    refused = platform.manage("PUT", f"/{name}", {"model": {"args": ["--nonsense", "1"]}})
    assert refused.status_code == 400
    assert "--nonsense" in refused.json()["error"]
    assert platform.chat(name, max_tokens=1).status_code == 200


# An embedding model, beside the chat model.


def test_the_download_showed_its_bytes_and_total(chat_endpoint):
    platform, name = chat_endpoint
    events = platform.manage("GET", f"/{name}/events").json()["items"]
    last = [event["data"] for event in events if event["kind"] == "downloading" and event["data"]][-1]
    assert last["bytes"] == last["total"] > 100_000


def test_openai_embeddings(embedder):
    platform, name = embedder
    for base, model in ((f"{platform.url}/v1", name), (f"{platform.url}/endpoints/admin/{name}/v1", "odsc-llm")):
        client = openai.OpenAI(base_url=base, api_key=platform.token, max_retries=0, timeout=60)
        found = client.embeddings.create(model=model, input=["hello there", "something else"])
        assert [len(row.embedding) for row in found.data] == [64, 64]
        assert found.data[0].embedding != found.data[1].embedding


def test_chat_on_an_embedding_model_is_a_clear_client_error(embedder):
    platform, name = embedder
    answer = platform.chat(name)
    assert answer.status_code == 404
    assert "POST /v1/embeddings" in answer.json()["error"]["message"]
