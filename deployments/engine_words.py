"""Words for what an engine says too little about: a route that it does not have, chat without a chat template, odd bodies.

Engines answer the first with their framework's bare `{"detail": "Not Found"}`, the second with advice for people who start vLLM
themselves, the third with a server error; clients expect their dialect's error, and users what they can do about it.
"""

from __future__ import annotations

import json
import math
import traceback
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import errors, http_errors, routes
from deployments import engine_stats

BARE = ({"detail": "Not Found"}, {"detail": "Method Not Allowed"})
NO_TEMPLATE = "default chat template is no longer allowed"
"""In what vLLM says of a model without a chat template."""
TEMPLATE_QUEUE = "Chat template rendering timed out"
"""What vLLM says of a request that waited too long while others' templates were worked on."""
TEMPLATE_RETRY_S = 5
SET_TEMPLATE = (
    "This model has no chat template, so it cannot chat: ask /v1/completions, use a chat or instruct model, "
    "or set model.settings.tokenizer.chatTemplate of the endpoint."
)


class EngineWords:
    """Wraps an engine's application. Whatever else it answers passes as it is."""

    def __init__(self, app: ASGIApp, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        """`stats.routes` are those that a client is told of who asked for one that is not there."""
        self._app = app
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        content = b""

        async def look(message: Message) -> None:
            nonlocal held, content
            if message["type"] == "http.response.start" and message["status"] in (400, 404, 405, 500):
                held = message
            elif held is None:
                await send(message)
            else:
                content += message.get("body", b"")
                if not message.get("more_body"):
                    await self._worded(scope, held, content, send)

        await self._app(scope, receive, look)

    async def _worded(self, scope: Scope, start: Message, content: bytes, send: Send) -> None:
        error = self._meant(scope, start["status"], content)
        if error is not None:
            content = json.dumps(http_errors.BODY_OF_DIALECT[routes.dialect_of_engine(scope["path"])](error)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
            if error.retry_after is not None:
                headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
            start = {"type": "http.response.start", "status": http_errors.status_of(error), "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": content})

    def _meant(self, scope: Scope, status: int, content: bytes) -> errors.MoorageError | None:
        """The error in our words, or None where the engine's own say enough."""
        if status == 400:
            return errors.InvalidRequest(SET_TEMPLATE, param="messages") if NO_TEMPLATE.encode() in content else None
        if status == 500:
            busy = errors.Unavailable("The model's chat template keeps this replica busy: try again.", retry_after=TEMPLATE_RETRY_S)
            return busy if TEMPLATE_QUEUE.encode() in content else None
        if _parsed(content) not in BARE:
            return None
        has = f" It has: {', '.join(self._stats.routes)}." if self._stats.routes else ""
        return errors.NotFound(f"The engine of this model has no route {scope['method']} {scope['path']}.{has}")


READING = "request_body_to_args"
"""FastAPI's function that makes arguments of a body: what goes wrong below it is wrong with the body."""
OF_ODD_BODIES = (AttributeError, IndexError, KeyError, TypeError)
"""What a model's own validators raise when they meet another type than they expect."""


async def refuse_odd_body(request: Request, error: Exception) -> Response:
    """An exception handler for `OF_ODD_BODIES`. Raises `error` again where it did not come from reading the body."""
    if not any(frame.name == READING for frame in traceback.extract_tb(error.__traceback__)):
        raise error
    refusal = errors.InvalidRequest("The request has a field of the wrong type.")
    body = http_errors.BODY_OF_DIALECT[routes.dialect_of_engine(request.url.path)](refusal)
    return JSONResponse(body, http_errors.status_of(refusal))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
