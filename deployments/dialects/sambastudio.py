"""SambaStudio's generic prediction API over the engine's OpenAI routes: POST /api/predict/generic[/stream] and the same under /api/v2.

Version 1 sends `instances` (or `instance`) and typed params, version 2 `items` and plain params; `translation` says what they mean.
A stream is one JSON object a line. Everything else passes through untouched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.dialects import inner, prediction

MOST_ITEMS = 64
"""Prompts in one request; each is a request to the engine."""

Handler = Callable[[prediction.Form, bytes, Scope, Receive, Send], Awaitable[None]]


class Dialect:
    """ASGI application in front of `app`, the engine's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes: dict[str, tuple[prediction.Form, Handler]] = {
            "/api/predict/generic": (prediction.V1, self._predict),
            "/api/predict/generic/stream": (prediction.V1, self._stream),
            "/api/v2/predict/generic": (prediction.V2, self._predict),
            "/api/v2/predict/generic/stream": (prediction.V2, self._stream),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        form, handler = found
        try:
            await handler(form, await inner.read_body(receive), scope, receive, send)
        except inner.ClientGone:
            return
        except inner.BodyTooLarge as exc:
            await inner.answer_json(send, 413, inner.openai_error(413, str(exc.__doc__)))
        except prediction.Invalid as exc:
            await inner.answer_json(send, 400, inner.openai_error(400, str(exc)))

    async def _predict(self, form: prediction.Form, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """All prompts at once; the first that fails is the answer, so that nobody takes a part for the whole."""
        asked = form.read(body, stream=False)
        if len(asked) > MOST_ITEMS:
            raise prediction.Invalid(f"send at most {MOST_ITEMS} prompts in one request, not {len(asked)}")
        async with _presence(receive) as client:
            answers = await asyncio.gather(*(self._ask(one, scope, client) for one in asked))
        failed = next((answer for answer in answers if answer.status != 200), None)
        if not all(answer.complete for answer in answers):
            return  # the client left
        if failed is not None:
            await inner.answer_json(send, failed.status, _json(failed.body), _kept(failed))
            return
        values = [(one.id, one.result(json.loads(answer.body))) for one, answer in zip(asked, answers, strict=True)]
        await inner.answer_json(send, 200, form.answer(values))

    async def _ask(self, asked: prediction.Asked, scope: Scope, client: _Client) -> inner.Answer:
        content = json.dumps(asked.body).encode()
        answer = inner.Answer()
        await self._app(inner.request(scope, "POST", asked.route, content), inner.replay(content, client.receive), answer)
        return answer

    async def _stream(self, form: prediction.Form, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        asked = form.read(body, stream=True)
        if len(asked) != 1:
            raise prediction.Invalid("a stream answers one prompt")
        content = json.dumps(asked[0].body).encode()
        relay = _LineRelay(send, form, prediction.Stream(asked[0]))
        await self._app(inner.request(scope, "POST", asked[0].route, content), inner.replay(content, receive), relay)
        await relay.finish()


class _Client:
    """A receive channel for several requests to the engine at once: it tells each of them when the client has gone."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


@asynccontextmanager
async def _presence(receive: Receive) -> AsyncIterator[_Client]:
    client = _Client()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        client.gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        yield client
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _LineRelay(inner.Events):
    """Sends a line for each of the engine's events; an answer that is no stream is kept for `finish`."""

    content_type = b"application/x-ndjson"

    def __init__(self, send: Send, form: prediction.Form, stream: prediction.Stream) -> None:
        super().__init__(send)
        self._form = form
        self._stream = stream

    def translate(self, data: Any) -> bytes:
        """The lines that one event is good for."""
        if "error" in data:
            return _line({"error": data["error"]})  # the last line, without a result: the stream has broken
        return b"".join(_line(self._form.event((self._stream.asked.id, value))) for value in self._stream.feed(data))

    async def finish(self) -> None:
        """To be called when the engine's application has returned."""
        if self.error is not None and self.error.complete:
            await inner.answer_json(self._send, self.error.status, _json(self.error.body), _kept(self.error))


def _line(item: dict[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return inner.openai_error(400, "the engine refused the request")


def _kept(answer: inner.Answer) -> list[tuple[bytes, bytes]]:
    return [header for header in answer.headers if header[0] == b"retry-after"]
