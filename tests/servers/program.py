"""A server of a user's own, as Moorage runs them: listens on 127.0.0.1 at $PORT (or HOST). Run: `python program.py [WORD...]`."""

import asyncio
import json
import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

SHOWN = ("PORT", "MODEL_PATH", "GREETING", "TOKEN", "HF_TOKEN", "PYTHONPATH", "MOORAGE_ENGINE_SECRET")
state = {"healthy": True, "cut": 0}


async def ping(request):
    return PlainTextResponse("pong", 200 if state["healthy"] else 500)


async def told(request):
    return JSONResponse({"words": sys.argv[1:], "environment": {name: os.environ.get(name) for name in SHOWN}, "cwd": os.getcwd()})


async def echo(request):
    seen = {"method": request.method, "path": request.url.path, "query": request.url.query, "headers": dict(request.headers)}
    return JSONResponse({**seen, "body": (await request.body()).decode()}, headers={"x-own": "kept"})


class Count:
    """Sizes of the parts of a body, each told as soon as it is there."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            size = f"{len(message['body'])}\n".encode() if message["body"] else b""
            await send({"type": "http.response.body", "body": size, "more_body": more})


async def stream(request):
    async def parts():
        try:
            for number in range(int(request.query_params.get("n", "3"))):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.05)
            if "broken" in request.query_params:
                raise RuntimeError("told to break off")
        except asyncio.CancelledError:
            state["cut"] += 1
            raise

    return StreamingResponse(parts(), media_type="text/event-stream")


async def settings(request):
    given = await request.json()
    if "exit" in given:
        print("told to exit, says the program", flush=True)
        os._exit(given["exit"])
    state.update(given)
    return JSONResponse(state)


async def talk(socket):
    await socket.accept()
    await socket.send_text(socket.url.path)
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


async def moved(socket):
    await socket.send_denial_response(RedirectResponse("/talk"))


async def predict(request):
    return Response(json.dumps({"predicted": (await request.json())["x"] * 2}), media_type="application/json")


routes = [
    Route("/ping", ping),
    Route("/told", told),
    Route("/", echo, methods=["POST"]),
    Route("/own/route", echo, methods=["GET", "POST", "PUT", "DELETE"]),
    Route("/count", Count(), methods=["POST"]),
    Route("/stream", stream),
    Route("/settings", settings, methods=["POST"]),
    Route("/predict", predict, methods=["POST"]),
    WebSocketRoute("/talk", talk),
    WebSocketRoute("/moved", moved),
]

if __name__ == "__main__":
    print("program: started, token", os.environ.get("TOKEN"), flush=True)
    uvicorn.run(Starlette(routes=routes), host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ["PORT"]), log_level="warning")
