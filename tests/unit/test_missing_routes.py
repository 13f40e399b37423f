"""Routes that an engine does not have are answered in words."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from deployments.missing_routes import MissingRoutes


async def own_404(request):
    return JSONResponse({"error": {"message": "The model `x` does not exist.", "code": 404}}, 404)


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
        Route("/bare", bare),
        Route("/stream", stream),
        Route("/ok", lambda request: PlainTextResponse("fine")),
    ]
    transport = httpx.ASGITransport(app=MissingRoutes(Starlette(routes=routes)))
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


async def test_the_engines_own_404_and_everything_else_pass_unchanged(client):
    assert (await client.get("/own")).json()["error"]["message"] == "The model `x` does not exist."
    assert (await client.get("/ok")).text == "fine"
    assert (await client.get("/stream")).text == "onetwo"
    assert (await client.get("/nowhere")).text == "Not Found"  # not the bare JSON of an API server: left alone
