"""SambaStudio's generic form against OpenAI's: translation, and the ASGI application without sockets."""

import json

import pytest
from support.asgi import Engine, post, whole

from deployments.dialects import prediction, sambastudio

TEXT = {
    "choices": [{"index": 0, "text": "yo", "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
}
SAID = {"choices": [{"index": 0, "message": {"content": "yo"}, "finish_reason": "length"}]}


def v1(params=None, prompt="hi"):
    (asked,) = prediction.V1.read(json.dumps({"instance": prompt, "params": params}).encode(), stream=True)
    return asked


def v2(params=None, prompt="hi"):
    (asked,) = prediction.V2.read(json.dumps({"items": [{"id": "a", "value": prompt}], "params": params}).encode(), stream=False)
    return asked


def typed(kind, value):
    return {"type": kind, "value": value}


def test_nothing_asked_for_means_greedy_and_a_hundred_tokens():
    assert v2().body == {"max_tokens": 100, "temperature": 0.0, "prompt": "hi"}
    assert v2().route == "/v1/completions"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_tokens_to_generate": typed("int", "7")}, {"max_tokens": 7}),
        ({"do_sample": typed("bool", "False"), "temperature": typed("float", "0.7")}, {"temperature": 0.0}),
        ({"do_sample": typed("bool", "true"), "temperature": typed("float", "0.7")}, {"temperature": 0.7}),
        ({"top_k": typed("int", "5"), "top_p": typed("float", "0.5")}, {"top_k": 5, "top_p": 0.5}),
        ({"select_expert": typed("str", "llama")}, {"model": "llama"}),
        ({"stop_sequences": typed("str", '"x","y"')}, {"stop": ["x", "y"]}),
        ({"stop_sequences": typed("list", "['x', 'y']")}, {"stop": ["x", "y"]}),
        ({"stop_sequences": typed("str", "END")}, {"stop": ["END"]}),
        ({"repetition_penalty": typed("float", "1.2"), "top_logprobs": typed("int", "3")}, {"repetition_penalty": 1.2, "logprobs": 3}),
    ],
)
def test_typed_parameter_is_translated_as_the_plain_one(params, expected):
    plain = {name: prediction._typed(name, value) for name, value in params.items()}
    assert expected.items() <= v1(params).body.items()
    assert expected.items() <= v2(plain).body.items()


@pytest.mark.parametrize("text", ['""', "[]", "", ","])
def test_no_stop_sequence_is_none(text):
    assert "stop" not in v1({"stop_sequences": typed("str", text)}).body


def test_a_processed_prompt_is_a_conversation_or_what_a_user_says():
    conversation = {"conversation_id": "c", "messages": [{"message_id": 0, "role": "user", "content": "Hi"}]}
    asked = v2({"process_prompt": True}, json.dumps(conversation))
    assert (asked.route, asked.body["messages"]) == ("/v1/chat/completions", [{"role": "user", "content": "Hi"}])
    for prompt in ("Hi", "[1]", "7", '{"no": "messages"}'):
        assert v2({"process_prompt": True}, prompt).body["messages"] == [{"role": "user", "content": prompt}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/predict/generic", body)
        for body in (
            b"",
            b"{",
            b"[]",
            b"{}",
            {"instances": []},
            {"instances": [1]},
            {"instances": "x"},
            {"instance": "x"},
            {"instances": ["x"], "params": []},
            {"instances": ["x"], "params": {"nonsense": typed("int", "1")}},
            {"instances": ["x"], "params": {"top_k": 5}},
            {"instances": ["x"], "params": {"top_k": typed("int", "five")}},
            {"instances": ["x"], "params": {"do_sample": typed("bool", "maybe")}},
            {"instances": ["x"] * 65},
        )
    ]
    + [
        ("/api/predict/generic/stream", {"instances": ["x"]}),
        ("/api/v2/predict/generic", {"items": [{"id": 1, "value": "x"}]}),
        ("/api/v2/predict/generic", {"items": ["x"]}),
        ("/api/v2/predict/generic/stream", {"items": [{"value": "x"}, {"value": "y"}]}),
        ("/api/v2/predict/generic", {"items": [{"value": '{"messages": 1}'}], "params": {"process_prompt": True}}),
    ],
)
async def test_what_is_no_request_is_refused_in_words(path, body):
    engine = Engine()
    sent = await post(sambastudio.Dialect(engine), path, body)
    assert sent[0]["status"] == 400
    assert json.loads(whole(sent))["error"]["message"]
    assert engine.asked == []


async def test_every_prompt_is_answered_in_order():
    engine = Engine(body=json.dumps(TEXT).encode())
    answer = json.loads(whole(await post(sambastudio.Dialect(engine), "/api/predict/generic", {"instances": ["a", "b"]})))
    assert [(one["prompt"], one["completion"], one["stop_reason"]) for one in answer["predictions"]] == [
        ("a", "yo", "end_of_text"),
        ("b", "yo", "end_of_text"),
    ]
    assert answer["status"]["complete"] is True
    assert [json.loads(body)["prompt"] for _, body in engine.asked] == ["a", "b"]


async def test_items_keep_their_ids_and_get_their_place_where_they_have_none():
    engine = Engine(body=json.dumps(SAID).encode())
    body = {"items": [{"id": "x", "value": "a"}, {"value": "b"}], "params": {"process_prompt": True}}
    answer = json.loads(whole(await post(sambastudio.Dialect(engine), "/api/v2/predict/generic", body)))
    assert [(item["id"], item["value"]["completion"], item["value"]["stop_reason"]) for item in answer["items"]] == [
        ("x", "yo", "max_len_reached"),
        ("1", "yo", "max_len_reached"),
    ]


@pytest.mark.parametrize("path", ["/api/v2/predict/generic", "/api/v2/predict/generic/stream"])
async def test_error_of_the_engine_is_the_answer(path):
    sent = await post(sambastudio.Dialect(Engine(429, b'{"error": {"message": "no"}}')), path, {"items": [{"value": "a"}]})
    assert (sent[0]["status"], json.loads(whole(sent))) == (429, {"error": {"message": "no"}})
    assert (b"retry-after", b"7") in sent[0]["headers"]


def events(*chunks):
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]


def text(piece, finish=None):
    return {"choices": [{"index": 0, "text": piece, "finish_reason": finish}]}


async def lines(path, body, parts):
    sent = await post(sambastudio.Dialect(Engine(parts=parts)), path, body)
    assert (b"content-type", b"application/x-ndjson") in sent[0]["headers"]
    return [json.loads(line) for line in whole(sent).splitlines()]


async def test_last_line_of_a_stream_has_the_whole_text_and_the_counts():
    parts = [*events(text("a"), text("b", "length"), {"choices": [], "usage": TEXT["usage"]}), b"data: [DONE]\n\n"]
    first, last = await lines("/api/predict/generic/stream", {"instance": "h"}, parts)
    assert first["result"]["responses"][0]["stream_token"] == "a"
    assert first["result"]["responses"][0]["is_last_response"] is False
    ended = last["result"]["responses"][0]
    assert (ended["stream_token"], ended["completion"], ended["stop_reason"]) == ("b", "ab", "max_len_reached")
    assert (ended["is_last_response"], ended["total_tokens_count"], ended["prompt"]) == (True, 3, "h")


async def test_stream_of_version_two_names_its_item():
    parts = events(text("a", "stop"), {"choices": [], "usage": TEXT["usage"]})
    (last,) = await lines("/api/v2/predict/generic/stream", {"items": [{"id": "x", "value": "h"}]}, parts)
    assert last["result"]["items"][0]["id"] == "x"
    assert last["result"]["items"][0]["value"]["completion"] == "a"


async def test_stream_that_breaks_never_ends_like_a_finished_one():
    for end in (events({"error": {"message": "engine died"}}), []):
        found = await lines("/api/predict/generic/stream", {"instance": "h"}, [*events(text("a")), *end, b""])
        assert not any(line.get("result", {}).get("responses", [{}])[0].get("is_last_response") for line in found)
    assert (await lines("/api/predict/generic/stream", {"instance": "h"}, [*events({"error": {"message": "died"}}), b""]))[-1] == {
        "error": {"message": "died"}
    }


async def test_other_routes_pass_untouched():
    engine = Engine(body=b"x")
    assert whole(await post(sambastudio.Dialect(engine), "/v1/completions", {"prompt": "a"})) == b"x"
