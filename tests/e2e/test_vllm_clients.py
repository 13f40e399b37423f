"""Stock, unmodified clients against real vLLM behind the edge."""

import asyncio
import subprocess
import time

import aiohttp
import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
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


def test_openai_responses_and_anthropic_messages_are_the_engines_own(client, chat_endpoint):
    platform, name = chat_endpoint
    assert client.responses.create(model=name, input="hello", max_output_tokens=4).output
    answer = httpx.post(
        f"{platform.url}/endpoints/admin/{name}/v1/messages",
        json={"model": name, "max_tokens": 4, "messages": MESSAGES},
        headers={"x-api-key": platform.token, "anthropic-version": "2023-06-01"},
        timeout=60,
    )
    assert answer.json()["type"] == "message"


def test_errors_of_the_engine_pass_unchanged(client):
    with pytest.raises(openai.BadRequestError, match="max"):
        client.chat.completions.create(model="x", messages=MESSAGES, max_tokens=100_000)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="x", messages=MESSAGES, temperature=-3)


def test_hugging_face_inference_client_chat_and_text_generation(chat_endpoint):
    platform, name = chat_endpoint
    url = f"{platform.url}/endpoints/admin/{name}"
    client = InferenceClient(base_url=url, api_key=platform.token, timeout=120)
    assert client.chat_completion(MESSAGES, max_tokens=4).choices
    client = InferenceClient(model=url, token=platform.token, timeout=120)
    assert isinstance(client.text_generation("Once upon", max_new_tokens=4), str)
    pieces = list(client.text_generation("Once upon", max_new_tokens=4, stream=True, details=True))
    assert pieces[-1].generated_text is not None
    assert len(pieces) <= 4


def test_curl_as_in_the_readme(chat_endpoint):
    platform, name = chat_endpoint
    line = ["curl", "-sS", f"{platform.url}/v1/chat/completions", "-H", f"Authorization: Bearer {platform.token}"]
    line += ["-H", "Content-Type: application/json"]
    line += ["-d", f'{{"model": "{name}", "max_tokens": 3, "messages": [{{"role": "user", "content": "hello"}}]}}']
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert '"chat.completion"' in done.stdout


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


def test_hugging_face_feature_extraction(embedder):
    platform, name = embedder
    client = InferenceClient(model=f"{platform.url}/endpoints/admin/{name}", token=platform.token, timeout=60)
    assert client.feature_extraction("hello there").shape[-1] == 64


def test_chat_on_an_embedding_model_is_a_clear_client_error(embedder):
    platform, name = embedder
    answer = platform.chat(name)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]
