"""The server process of text-to-image: a diffusers pipeline behind Hugging Face's and OpenAI's routes.

Run: `python -m deployments.text_to_image_server --host --port --name --model FOLDER --settings JSON`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import io
import logging
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cluster import errors, http_errors, images
from deployments import engine_stats, guard, image_batches, image_requests, usage
from deployments.dialects import huggingface, inner
from deployments.image_requests import Asked, Bounds, Invalid, Shape

log = logging.getLogger(__name__)
KEEP_ALIVE_S = 75
QUALITY = 90
"""Of JPEG and WebP, out of 100."""
SEEDS = 2**32
"""Seeds that are chosen here are below this."""
Handler = Callable[[Request], Awaitable[Response]]


class Painter(image_batches.Painter, Protocol):
    """What the server needs of a pipeline."""

    def check(self, shape: Shape, negative: str | None) -> None:
        """Whether it knows what is asked. Raises Invalid."""
        ...


class Server:
    """The routes. `painter` is None until the pipeline is loaded."""

    def __init__(self, name: str, settings: images.DiffusersImage, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        self._name = name
        self._settings = settings
        self._bounds = Bounds(settings.max_side, settings.max_steps, settings.max_images)
        self._served = huggingface.Served.from_environment(os.environ)
        self._running = 0
        self._painter: Painter | None = None
        self._batches: image_batches.Batches | None = None
        stats.connected = True
        stats.tasks = ("image",)
        stats.max_concurrency = settings.max_concurrency
        stats.unfinished = lambda: self._running
        stats.waiting = lambda: self._batches.waiting() if self._batches else 0
        self._stats = stats

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/info", self._info),
                Route("/v1/models", self._models),
                Route("/v1/images/generations", _told(self._openai, _openai_error), methods=["POST"]),
                Route("/", _told(self._hugging_face, _hugging_face_error), methods=["POST"]),
            ],
            exception_handlers={404: _missing, 405: _missing},
        )

    async def paint(self, painter: Painter) -> None:
        """From now on it is ready; runs the batches for ever."""
        self._painter, self._batches = painter, image_batches.Batches(painter, self._settings.max_batch)
        await self._batches.run()

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok" if self._batches else "loading"}, 200 if self._batches else 503)

    async def _info(self, _: Request) -> Response:
        known = {"model_id": self._served.model or self._name, "model_sha": self._served.revision, "model_pipeline_tag": "text-to-image"}
        return JSONResponse({**known, **dataclasses.asdict(self._bounds), "max_batch": self._settings.max_batch})

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self._name, "object": "model", "created": 0, "owned_by": "moorage"}]})

    async def _hugging_face(self, request: Request) -> Response:
        content = await inner.read_body(request.receive)
        asked = image_requests.hugging_face(content, request.headers.get("accept", ""), self._bounds)
        (image,) = await self._made(asked, request)
        return Response(image, media_type=image_requests.FORMATS[asked.format])

    async def _openai(self, request: Request) -> Response:
        asked = image_requests.openai(await inner.read_body(request.receive), self._bounds)
        images = await self._made(asked, request)
        data = [{"b64_json": base64.b64encode(image).decode()} for image in images]
        return JSONResponse({"created": int(time.time()), "data": data, "output_format": asked.format})

    async def _made(self, asked: Asked, request: Request) -> list[bytes]:
        """The encoded images. Raises Invalid, TooLarge, and ClientGone when the client leaves meanwhile."""
        if self._painter is None or self._batches is None:
            raise errors.Starting
        self._painter.check(asked.shape, asked.negative)
        seed = secrets.randbelow(SEEDS) if asked.seed is None else asked.seed
        pictures = [image_batches.Picture(asked.prompt, asked.negative, seed + number) for number in range(asked.count)]
        if not self._running:
            self._stats.stepped_at = time.monotonic()
        self._running += 1
        making = asyncio.ensure_future(self._batches.make(asked.shape, pictures))
        leaving = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((making, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                raise inner.ClientGone
            made = making.result()
            if (account := usage.ACCOUNT.get()) is not None:
                account.images += len(made)
            return list(await asyncio.gather(*(asyncio.to_thread(encode, image, asked.format) for image in made)))
        finally:
            self._running -= 1
            making.cancel()
            leaving.cancel()
            await asyncio.gather(making, leaving, return_exceptions=True)


def encode(image: Any, kind: str) -> bytes:
    """A PIL image as a file of that kind."""
    file = io.BytesIO()
    image.save(file, kind, **({} if kind == "png" else {"quality": QUALITY}))
    return file.getvalue()


def _told(handler: Handler, render: Callable[[int, str, str | None], Response]) -> Handler:
    """`handler` with its errors in its dialect's words."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except Invalid as exc:
            return render(400, f"{exc.message}.", exc.param)
        except inner.BodyTooLarge as exc:
            return render(413, str(exc.__doc__), None)
        except image_batches.TooLarge:
            return render(413, "The images do not fit the accelerator's memory: ask for smaller ones.", None)
        except inner.ClientGone:
            return Response(status_code=499)  # nobody reads it
        except errors.Starting as exc:
            return render(503, exc.message, None)
        except Exception:  # a pipeline raises what it likes; its log tells, the client gets no inner words
            log.exception("a request failed")
            return render(500, "The pipeline failed on this request.", None)

    return told


def _openai_error(status: int, message: str, param: str | None) -> Response:
    error = _error(status, message, param)
    return JSONResponse(http_errors.openai_body(error), status)


def _hugging_face_error(status: int, message: str, param: str | None) -> Response:  # noqa: ARG001 - Hugging Face's shape names no field
    kinds = {400: (422, "validation"), 413: (413, "validation"), 503: (503, "overloaded")}
    shown, kind = kinds.get(status, (status, "generation"))
    return JSONResponse({"error": message, "error_type": kind}, shown)


def _error(status: int, message: str, param: str | None) -> errors.MoorageError:
    kinds: dict[int, type[errors.MoorageError]] = {400: errors.InvalidRequest, 413: errors.TooLarge, 503: errors.Starting}
    return kinds.get(status, errors.MoorageError)(message, param=param)


async def _missing(request: Request, _: Exception) -> Response:
    error = errors.NotFound(f"The engine of this model has no route {request.method} {request.url.path}.")
    return JSONResponse(http_errors.openai_body(error), 404)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def load(given: argparse.Namespace, settings: images.DiffusersImage) -> Painter:
    """Imports diffusers, which takes a while, and loads the pipeline."""
    from deployments.diffusers_painter import DiffusersPainter  # noqa: PLC0415 - the server listens meanwhile

    _say("loading the pipeline")
    painter = DiffusersPainter(Path(given.model), settings.dtype, allow_pickle=given.allow_pickle)
    _say(f"loaded {painter.name}")
    return painter


async def serve(given: argparse.Namespace) -> None:
    """Until SIGTERM. Raises what loading raises."""
    settings = images.DiffusersImage.model_validate_json(given.settings)
    server = Server(given.name, settings)
    app = guard.Guard(server.app(), own_routes=True)
    options: dict[str, Any] = {"lifespan": "off", "access_log": False, "log_level": "warning", "ws": "none"}
    running = uvicorn.Server(uvicorn.Config(app, given.host, given.port, timeout_keep_alive=KEEP_ALIVE_S, **options))
    serving = asyncio.create_task(running.serve())
    try:
        painter = await asyncio.to_thread(load, given, settings)
        painting = asyncio.create_task(server.paint(painter))
        await serving
        painting.cancel()
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


def _say(line: str) -> None:
    sys.stderr.write(f"moorage: {line}\n")
    sys.stderr.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serves a diffusers pipeline")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--allow-pickle", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
