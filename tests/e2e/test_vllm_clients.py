"""Stock, unmodified clients against real vLLM behind the edge."""

import asyncio
import subprocess
import time

import aiohttp
import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from support.adapters import lora_shapes, write_adapter
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


# Adapters, on the same vLLM.


def adapters(platform, name):
    return {one["name"]: one for one in platform.status(name)["adapters"]}


def say(client, model, **options):
    """The greedy answer, whole or as a stream."""
    asked = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 24, "extra_body": {"ignore_eos": True}, **options}
    return client.chat.completions.create(**asked)


def test_adapters_come_and_go_on_a_running_vllm_and_each_answers_in_its_own_voice(client, chat_endpoint, models):
    platform, name = chat_endpoint
    base = say(client, "x").choices[0].message.content
    running = say(client, "x", stream=True, max_tokens=400)
    heard = [next(running)]
    tone = write_adapter(models("llama").parent / "tone", shapes=lora_shapes(hidden=128, layers=(0, 1)), seed=2)
    for adapter in ({"name": "style", "repository": "tiny/style"}, {"name": "tone", "repository": str(tone)}):
        assert platform.manage("POST", f"/{name}/adapters", adapter).status_code == 200
    until(lambda: {one["state"] for one in adapters(platform, name).values()} == {"ready"}, 60, what="both adapters are ready")
    heard += list(running)
    assert heard[-1].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard).startswith(base)
    style, tone = (say(client, model) for model in ("style", f"{name}:tone"))
    assert (style.model, tone.model) == ("style", f"{name}:tone")
    assert len({base, style.choices[0].message.content, tone.choices[0].message.content}) == 3
    assert say(client, "x").choices[0].message.content == base
    shared = openai.OpenAI(base_url=f"{platform.url}/v1", api_key=platform.token, max_retries=0)
    assert say(shared, f"{name}:style").choices[0].message.content == style.choices[0].message.content
    own = {model.id: getattr(model, "parent", None) for model in client.models.list()}
    assert own[f"{name}:style"] == name
    assert all("/" not in model.root for model in client.models.list())

    running = say(client, "style", stream=True, max_tokens=400)
    heard = [next(running)]
    assert platform.manage("DELETE", f"/{name}/adapters/style").status_code == 200
    for someone, model in ((client, "style"), (client, f"{name}:style"), (shared, f"{name}:style")):
        with pytest.raises(openai.NotFoundError) as refusal:
            say(someone, model)
        assert refusal.value.code == "model_not_found"
    heard += list(running)
    assert heard[-1].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard).startswith(style.choices[0].message.content)
    assert say(client, "tone").choices[0].message.content == tone.choices[0].message.content
    platform.manage("DELETE", f"/{name}/adapters/tone")


def test_adapters_of_a_wrong_rank_and_of_another_model_are_refused_with_the_reason(chat_endpoint, models):
    platform, name = chat_endpoint
    folder = models("llama").parent
    big = {"name": "big", "repository": str(write_adapter(folder / "big", rank=32))}
    refused = platform.manage("POST", f"/{name}/adapters", big)
    assert refused.status_code == 400 and "maxLoraRank to 32" in refused.json()["error"]
    other = {"name": "other", "repository": str(write_adapter(folder / "other", shapes=lora_shapes(hidden=64)))}
    assert platform.manage("POST", f"/{name}/adapters", other).status_code == 200
    failed = until(lambda: [one for one in adapters(platform, name).values() if one["state"] == "failed"], 60, what="it is refused")
    assert failed[0]["reason"] == "WrongBase" and "wide in the model and 64 in the adapter" in failed[0]["message"]
    platform.manage("DELETE", f"/{name}/adapters/other")
