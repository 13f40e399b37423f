"""What engines say too little about is answered in words: routes that they do not have, chat without a template."""

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, model_validator
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from deployments import engine_words
from deployments.engine_stats import EngineStats
from deployments.engine_words import EngineWords


async def own_404(request):
    return JSONResponse({"error": {"message": "The model `x` does not exist.", "code": 404}}, 404)


async def no_template(request):
    text = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
    return JSONResponse({"error": {"message": text}}, 400)


async def busy(request):
    return JSONResponse({"error": {"message": "Chat template rendering timed out after 30.0s. This may indicate a loop."}}, 500)


async def broken(request):
    return JSONResponse({"error": {"message": "Internal Server Error"}}, 500)


async def refused(request):
    return JSONResponse({"error": {"message": "temperature must be positive"}}, 400)


async def bare(request):
    return JSONResponse({"detail": "Not Found"}, 404)


async def stream(request):
    async def pieces():
        for piece in ("one", "two"):
            yield piece

    return StreamingResponse(pieces())


@pytest.fixture
async def client():
    routes = [
        Route("/own", own_404),
        Route("/v1/chat/completions", no_template),
        Route("/v1/messages", no_template),
        Route("/refused", refused),
        Route("/busy", busy),
        Route("/broken", broken),
        Route("/bare", bare),
        Route("/stream", stream),
        Route("/ok", lambda request: PlainTextResponse("fine")),
    ]
    transport = httpx.ASGITransport(app=EngineWords(Starlette(routes=routes), EngineStats()))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        yield client


async def test_the_frameworks_bare_answer_becomes_an_error_with_the_route(client):
    answer = await client.get("/bare")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "The engine of this model has no route GET /bare.",
        "type": "invalid_request_error",
        "param": None,
        "code": "not_found",
    }


async def test_a_request_that_waited_too_long_for_other_ones_templates_is_told_to_try_again(client):
    answer = await client.get("/busy")
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    answer = await client.get("/broken")
    assert (answer.status_code, answer.json()) == (500, {"error": {"message": "Internal Server Error"}})


async def test_the_engines_own_404_and_everything_else_pass_unchanged(client):
    assert (await client.get("/own")).json()["error"]["message"] == "The model `x` does not exist."
    assert (await client.get("/ok")).text == "fine"
    assert (await client.get("/stream")).text == "onetwo"
    assert (await client.get("/nowhere")).text == "Not Found"  # not the bare JSON of an API server: left alone


async def test_the_routes_that_there_are_are_named():
    stats = EngineStats(routes=("POST /v1/embeddings", "POST /v1/score"))
    transport = httpx.ASGITransport(app=EngineWords(Starlette(routes=[Route("/bare", bare)]), stats))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        message = (await client.get("/bare")).json()["error"]["message"]
    assert message == "The engine of this model has no route GET /bare. It has: POST /v1/embeddings, POST /v1/score."


async def test_chat_without_a_template_says_how_to_set_one(client):
    answer = await client.get("/v1/chat/completions")
    assert answer.status_code == 400
    assert "model.settings.tokenizer.chatTemplate" in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "messages"
    anthropic = (await client.get("/v1/messages")).json()
    assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "invalid_request_error")


async def test_other_refusals_of_the_engine_pass(client):
    answer = await client.get("/refused")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "temperature must be positive")


class Asked(BaseModel):
    options: dict = {}

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, data):
        data["options"].get("n")  # as vLLM's checks do, before they know what it is
        return data


async def answer(asked: Asked):
    return {"n": 1 // asked.options["n"], "m": asked.options["m"]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"options": "x"}, 400),
        ({"options": 5}, 400),
        ({}, 400),
        ([], 400),
        ({"options": {"n": 1, "m": 2}}, 200),
        ({"options": {"n": 1}}, 500),
    ],
)
async def test_a_body_that_an_engines_own_checks_stumble_over_is_the_clients_fault(body, status):
    app = FastAPI()
    app.post("/v1/completions")(answer)
    for kind in engine_words.OF_ODD_BODIES:
        app.add_exception_handler(kind, engine_words.refuse_odd_body)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        found = await client.post("/v1/completions", json=body)
    assert found.status_code == status
    if status == 400:
        assert found.json()["error"]["code"] == "invalid_request"
