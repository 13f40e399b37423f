"""What `model` means in a server with adapters, and how a refusal reaches the client whatever the engine makes of it."""

import json

import pytest
from starlette.types import Message

from cluster import errors
from deployments import adapter_names

READY = {"state": "ready", "message": ""}


@pytest.fixture
def names():
    made = adapter_names.Names("team/chat")
    made.tell({"style": READY, "slow": {"state": "pending", "message": ""}, "bad": {"state": "failed", "message": "no rank"}}, ["old"])
    return made


@pytest.mark.parametrize("model", ["style", "chat:style", "team/chat:style"])
def test_an_adapter_is_meant_by_each_of_its_names(names, model):
    assert names.adapter_of(model) == "style"


@pytest.mark.parametrize("model", ["chat", "team/chat", "anything", "gpt-4:latest", "other:style", ""])
def test_any_other_name_is_the_base_model(names, model):
    assert names.adapter_of(model) is None


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("chat:nothing", errors.ModelNotFound),
        ("team/chat:nothing", errors.ModelNotFound),
        ("chat:", errors.ModelNotFound),
        ("chat:chat", errors.ModelNotFound),
        ("old", errors.ModelNotFound),
        ("chat:old", errors.ModelNotFound),
        ("slow", errors.Starting),
        ("chat:slow", errors.Starting),
        ("bad", errors.Failed),
    ],
)
def test_a_name_that_is_or_was_an_adapters_never_means_the_base_model(names, model, error):
    with pytest.raises(adapter_names.Refused) as refusal:
        names.adapter_of(model)
    assert type(refusal.value.error) is error


def test_adapters_are_listed_as_clients_write_them(names):
    assert names.listed() == ["chat:style", "chat:slow", "chat:bad"]


async def answered(names, model, path="/v1/completions", status=400):
    """What a client gets of an engine that turns a refusal into `status`."""
    sent: list[Message] = []

    async def engine(scope, receive, send):
        code = 200
        if not adapter_names.managed():
            try:
                names.adapter_of(model)
            except ValueError:
                code = status
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": b"engine", "more_body": True})
        await send({"type": "http.response.body", "body": b"'s own"})

    async def send(message):
        sent.append(message)

    await adapter_names.Refusals(engine)({"type": "http", "path": path}, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


async def test_a_refusal_has_its_own_words_and_status(names):
    status, headers, body = await answered(names, "chat:nothing")
    assert (status, json.loads(body)["error"]["code"], headers[b"x-error-code"]) == (404, "model_not_found", b"model_not_found")
    status, headers, body = await answered(names, "slow", status=500)
    assert (status, json.loads(body)["error"]["code"], headers[b"retry-after"]) == (503, "starting", b"2")
    assert "no rank" in (await answered(names, "bad"))[2].decode()


async def test_what_was_not_refused_passes_as_it_is(names):
    assert await answered(names, "anything") == (200, {}, b"engine's own")


async def test_loading_is_not_asking(names):
    assert (await answered(names, "slow", "/v1/load_lora_adapter"))[0] == 200


def test_a_member_has_no_adapters_and_answers_to_the_name_it_was_chosen_by():
    member = adapter_names.Names("team/chat", "code")
    assert [member.adapter_of(model) for model in ("chat:code", "team/chat:code", "code", "chat")] == [None] * 4
