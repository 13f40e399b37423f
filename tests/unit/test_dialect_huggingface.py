"""Hugging Face's form against OpenAI's: translation, and the ASGI application without sockets."""

import json

import pytest
from support import asgi
from support.asgi import Engine, whole

from deployments.dialects import generation, huggingface
from deployments.engine_stats import EngineStats

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def translate(parameters=None, stream=False, inputs="hi"):
    return generation.to_completions(inputs, parameters, stream=stream)[0]


def test_nothing_asked_for_means_greedy_and_a_hundred_tokens():
    body = translate()
    assert (body["temperature"], body["max_tokens"], body["prompt"]) == (0.0, 100, "hi")
    assert "logprobs" not in body


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"max_new_tokens": 7}, {"max_tokens": 7}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"temperature": 0.3, "seed": 4}, {"temperature": 0.3, "seed": 4}),
        ({"stop": ["x"]}, {"stop": ["x"]}),
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"truncate": 50}, {"truncate_prompt_tokens": 50}),
        (
            {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_k": 3},
            {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_k": 3},
        ),
        ({"adapter_id": "french"}, {"model": "french"}),
        ({"details": True}, {"logprobs": 0}),
        ({"grammar": {"type": "json", "value": SCHEMA}}, {"structured_outputs": {"json": SCHEMA}}),
        ({"grammar": {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}}}, {"structured_outputs": {"json": SCHEMA}}),
        ({"grammar": {"type": "regex", "value": "[0-9]+"}}, {"structured_outputs": {"regex": "[0-9]+"}}),
        ({"watermark": False, "best_of": 1, "typical_p": None}, {}),
    ],
)
def test_parameter_is_translated(parameters, expected):
    assert expected.items() <= translate(parameters).items()


@pytest.mark.parametrize(
    ("inputs", "parameters"),
    [
        ("", {}),
        (None, {}),
        (7, {}),
        ([], {}),
        ([1], {}),
        ("x", []),
        ("x", {"nonsense": 1}),
        ("x", {"watermark": True}),
        ("x", {"best_of": 2}),
        ("x", {"top_n_tokens": 2}),
        ("x", {"grammar": "json"}),
    ],
)
def test_what_cannot_be_translated_is_refused(inputs, parameters):
    with pytest.raises(generation.Invalid):
        generation.to_completions(inputs, parameters, stream=False)


def test_list_of_prompts_cannot_be_streamed():
    with pytest.raises(generation.Invalid):
        translate(inputs=["a", "b"], stream=True)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "stop", "stop_reason": None}, "eos_token"),
        ({"finish_reason": "stop", "stop_reason": "."}, "stop_sequence"),
    ],
)
def test_finish_reason_is_translated(choice, reason):
    assert generation.finish_reason(choice) == reason


def chunk(text, finish=None, ids=(1,)):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, "token_ids": list(ids)}]}


def test_last_event_of_a_stream_waits_for_the_usage():
    stream = generation.Stream(generation.Wanted(("p",), full_text=True, details=False, seed=3))
    assert stream.feed(chunk("a"))[0]["token"] == {"id": 1, "text": "a", "logprob": None, "special": False}
    assert stream.feed(chunk("b", "length")) == []
    (last,) = stream.feed({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}})
    assert last["generated_text"] == "pab"
    assert last["details"] == {"finish_reason": "length", "generated_tokens": 2, "input_length": 4, "seed": 3}


def test_error_within_a_stream_is_told_in_the_dialects_words():
    stream = generation.Stream(generation.Wanted(("p",), full_text=False, details=False, seed=None))
    assert stream.feed({"error": {"message": "engine died"}}) == [{"error": "engine died", "error_type": "generation"}]


async def post(engine, path, body, task="text-generation", labels=None):
    dialect = huggingface.Dialect(engine, huggingface.Served("m", None, task), EngineStats(labels=labels or {}))
    return await asgi.post(dialect, path, body)


async def test_request_reaches_the_engine_as_a_completion_with_its_other_headers():
    engine = Engine(body=json.dumps({"choices": [{"index": 0, "text": "yo", "finish_reason": "stop"}]}).encode())
    sent = await post(engine, "/generate", {"inputs": "hi"})
    scope, body = engine.asked[0]
    assert (scope["method"], scope["path"]) == ("POST", "/v1/completions")
    assert dict(scope["headers"]) == {
        b"x-request-id": b"r",
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
    }
    assert json.loads(whole(sent)) == {"generated_text": "yo"}


@pytest.mark.parametrize(
    ("status", "expected", "kind"), [(400, 422, "validation"), (404, 404, "not_found"), (429, 429, "overloaded"), (500, 500, "generation")]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_of_the_engine_is_told_in_the_dialects_shape(status, expected, kind, stream):
    sent = await post(Engine(status, b'{"error": {"message": "no"}}'), "/", {"inputs": "hi", "stream": stream})
    assert sent[0]["status"] == expected
    assert json.loads(whole(sent)) == {"error": "no", "error_type": kind}
    assert (b"retry-after", b"7") in sent[0]["headers"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs": 1}', b"\xff\xfe", b"[" * 200_000])
async def test_body_that_is_no_request_is_422(body):
    sent = await post(Engine(), "/", body)
    assert sent[0]["status"] == 422
    assert json.loads(whole(sent))["error_type"] == "validation"


async def test_stream_is_translated_across_any_split_of_its_bytes():
    events = b"".join(
        b"data: " + json.dumps(item).encode() + b"\r\n\r\n"
        for item in (chunk("é"), chunk("b", "stop"), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    )
    events += b"data: [DONE]\n\n"
    expected = None
    for step in (1, 2, 7, 50, len(events)):
        parts = [events[at : at + step] for at in range(0, len(events), step)]
        found = [
            json.loads(line[5:])
            for line in whole(await post(Engine(parts=parts), "/", {"inputs": "h", "stream": True})).split(b"\n\n")
            if line
        ]
        expected = expected or found
        assert found == expected
    assert expected[-1]["generated_text"] == "éb"


async def test_embedding_task_answers_vectors_in_order():
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    engine = Engine(body=json.dumps({"data": data}).encode())
    sent = await post(engine, "/", {"inputs": ["a", "b"], "truncate": True}, task="feature-extraction")
    assert json.loads(whole(sent)) == [[1.0], [2.0]]
    assert json.loads(engine.asked[0][1]) == {"input": ["a", "b"], "encoding_format": "float", "truncate_prompt_tokens": -1}


async def test_schema_that_inference_client_rewrites_binds_the_output_again():
    engine = Engine()
    chat = {"messages": [], "response_format": {"type": "json_object", "value": SCHEMA}}
    await post(engine, "/v1/chat/completions", chat)
    scope, body = engine.asked[0]
    assert json.loads(body)["response_format"] == {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA}}
    assert dict(scope["headers"])[b"content-length"] == str(len(body)).encode()


@pytest.mark.parametrize("body", [b'{"messages": [ ], "value": "json_object"}', b'{"value" "json_object"', b'{"a":1}'])
async def test_other_chat_bodies_pass_through_byte_for_byte(body):
    engine = Engine()
    await post(engine, "/v1/chat/completions", body)
    assert engine.asked[0][1] == body
