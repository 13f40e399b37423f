"""Adapters at the edge: named in `model` behind a colon, listed with their parent, unknown ones never the base model."""

from __future__ import annotations

import dataclasses

import pytest

CHAT = "/v1/chat/completions"
LARGE = "x" * 100_000


async def told(request):
    async with request as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("filler", ["", LARGE], ids=["small", "large"])
async def test_an_adapter_is_named_behind_a_colon_and_any_other_name_there_is_404(world, engines, endpoint, filler):
    engine = await engines("one")
    await world.publish(endpoint("chat-one", engine, adapters=("style", "my.tone_2")), endpoint("chat-two", await engines("two")))
    key = await world.key()
    for model in ("chat-one:style", "acme/chat-one:style", "chat-one:my.tone_2"):
        code, answer = await told(world.post(CHAT, key, {"model": model, "filler": filler}))
        assert (code, answer["engine"], answer["model"]) == (200, "one", model)
    asked = len(engine.bodies)
    for model in (
        "chat-one:other",
        "chat-one:",
        "chat-one:style:x",
        "chat-one:chat-one",
        "chat-two:style",
        "none:style",
        "other/chat-one:style",
    ):
        code, answer = await told(world.post(CHAT, key, {"model": model, "filler": filler}))
        assert (code, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", None if not filler else "model"), model
        assert "style" not in answer["error"]["message"]
    assert len(engine.bodies) == asked


async def test_an_adapter_is_refused_as_soon_as_it_is_gone_and_known_as_soon_as_it_is_there(world, engines, endpoint):
    row = endpoint("chat-one", await engines())
    await world.publish(row)
    key = await world.key()
    ask = lambda: told(world.post(CHAT, key, {"model": "chat-one:style"}))  # noqa: E731
    assert (await ask())[0] == 404
    await world.publish(dataclasses.replace(row, adapters=("style",)))
    assert (await ask())[0] == 200
    await world.publish(row)
    assert (await ask())[0] == 404


async def test_the_list_of_models_has_adapters_with_their_parent(world, engines, endpoint):
    await world.publish(endpoint("chat-one", await engines(), adapters=("style",)), endpoint("at-zero", adapters=("tone",)))
    key = await world.key()
    code, listed = await told(world.get("/v1/models", key))
    assert (code, {model["id"]: model.get("parent") for model in listed["data"]}) == (
        200,
        {"at-zero": None, "at-zero:tone": "at-zero", "chat-one": None, "chat-one:style": "chat-one"},
    )
    code, own = await told(world.get("/endpoints/acme/at-zero/v1/models", key))
    assert [model["id"] for model in own["data"]] == ["at-zero", "at-zero:tone"]
    assert (await told(world.get("/v1/models/chat-one:style", key)))[1]["parent"] == "chat-one"
    assert (await told(world.get("/v1/models/chat-one:nothing", key)))[0] == 404


async def test_an_unknown_adapter_does_not_wake_its_endpoint(world, endpoint):
    await world.publish(endpoint("at-zero", adapters=("style",)))
    key = await world.key()
    assert (await told(world.post(CHAT, key, {"model": "at-zero:nothing"})))[0] == 404
    assert world.manager.wakes == []
    code, answer = await told(world.post(CHAT, key, {"model": "at-zero:style"}, headers={"X-Scale-Up-Timeout": "0"}))
    assert (code, answer["error"]["code"]) == (503, "starting")


async def test_a_reload_keeps_the_adapters(world, engines, endpoint):
    rows = [endpoint(f"chat-{number}", await engines(f"e{number}"), adapters=("style",)) for number in range(9)]
    await world.publish(*rows[:1])
    key = await world.key()
    await world.publish(*rows)  # more than there are slots: HAProxy is reloaded
    code, answer = await told(world.post(CHAT, key, {"model": "chat-8:style"}))
    assert (code, answer["engine"]) == (200, "e8")
