"""Ray Serve as people use it: `python -m benchmarks.serve_process PORT ENGINE FOLDER`. Ends with its standard input."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import ray
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from ray import serve

app = FastAPI()


@serve.deployment(max_ongoing_requests=1000)
class Engine:
    """Calls the engine."""

    def __init__(self, engine: int) -> None:
        self._url = f"http://127.0.0.1:{engine}/v1/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def chat(self, body: bytes, pace: str) -> AsyncIterator[bytes]:
        """The answer, part by part."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with self._session.post(self._url, data=body, headers={"content-type": "application/json", "x-pace-ms": pace}) as answer:
            async for part in answer.content.iter_any():
                yield part


@serve.deployment(max_ongoing_requests=1000)
@serve.ingress(app)
class Ingress:
    """The OpenAI route."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine.options(stream=True)

    @app.get("/health")
    async def health(self) -> str:
        """Alive."""
        return "ok"

    @app.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Response:
        """Streams when asked to."""
        body = await request.body()
        parts = self._engine.chat.remote(body, request.headers.get("x-pace-ms", "0"))
        if b'"stream": true' in body:
            return StreamingResponse(parts, media_type="text/event-stream")
        return Response(b"".join([part async for part in parts]), media_type="application/json")


def main() -> None:
    """Runs until standard input ends."""
    port, engine, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    ray.init(num_cpus=4, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR", "enable_access_log": False})
    deployments: Any = (Ingress, Engine)  # what the decorators have made of the classes
    serve.run(deployments[0].bind(deployments[1].bind(engine)))
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
