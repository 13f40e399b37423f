"""Hugging Face's stock client against a whole replica on the echo engine."""

import json
import os
import signal

import httpx
import pytest
from huggingface_hub.errors import ValidationError

from deployments.server_process import session_members


async def test_inference_client_generates_text(replicas):
    replica = await replicas.start()
    assert await (await replicas.hugging_face(replica)).text_generation("one two", max_new_tokens=3) == "one two one"


async def test_inference_client_gets_details(replicas):
    replica = await replicas.start()
    found = await (await replicas.hugging_face(replica)).text_generation("one two", max_new_tokens=3, details=True, return_full_text=True)
    assert found.generated_text == "one twoone two one"
    assert found.details.finish_reason == "length"


async def test_inference_client_streams_text_with_details(replicas):
    replica = await replicas.start()
    stream = await (await replicas.hugging_face(replica)).text_generation("one two", max_new_tokens=3, stream=True, details=True)
    events = [event async for event in stream]
    assert "".join(event.token.text for event in events) == "one two one"
    assert [event.generated_text for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].generated_text == "one two one"
    assert events[-1].details.generated_tokens == 3
    assert events[-1].details.input_length == 2


async def test_inference_client_sees_an_error_of_the_engine_as_validation(replicas):
    replica = await replicas.start()
    with pytest.raises(ValidationError, match="max_tokens"):
        await (await replicas.hugging_face(replica)).text_generation("one", max_new_tokens=-1)
    with pytest.raises(ValidationError, match="watermark"):
        await (await replicas.hugging_face(replica)).text_generation("one", watermark=True)


async def test_inference_client_extracts_features(replicas):
    replica = await replicas.start(task="feature-extraction")
    assert (await (await replicas.hugging_face(replica)).feature_extraction("one two")).shape == (1, 64)
    assert (await (await replicas.hugging_face(replica)).feature_extraction("one two", dimensions=8)).shape == (1, 8)


async def test_inference_client_chats(replicas):
    replica = await replicas.start()
    answer = await (await replicas.hugging_face(replica)).chat_completion([{"role": "user", "content": "hello there"}])
    assert answer.choices[0].message.content == "hello there"


async def test_generate_answers_an_object_and_info_names_the_model(replicas):
    replica = await replicas.start()
    http = await replicas.http(replica)
    assert (await http.post("/generate", json={"inputs": "a b"})).json()["generated_text"].startswith("a b a b")
    assert (await http.get("/info")).json()["model_id"] == "team/model"
    batch = await http.post("/", json={"inputs": "a", "parameters": {"max_new_tokens": 1}})
    assert batch.json() == [{"generated_text": "a"}]


async def test_stream_of_the_dialect_whose_server_dies_never_looks_finished(replicas):
    replica = await replicas.start(tokensPerSecond=20)
    http = await replicas.http(replica)
    received = b""
    request = {"inputs": "a", "parameters": {"max_new_tokens": 500}, "stream": True}
    with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - the break comes while reading
        async with http.stream("POST", "/", json=request) as answer:
            async for part in answer.aiter_bytes():
                received += part
                os.kill(max(session_members(replica.process.pid)), signal.SIGKILL)
    events = [json.loads(line[5:]) for line in received.decode().splitlines() if line.startswith("data:")]
    assert events
    assert all(event["generated_text"] is None for event in events)
