"""Words for what an engine says too little about: a route that this model's engine does not have, chat without a chat template.

Engines answer the first with their framework's bare `{"detail": "Not Found"}`, the second with advice for people who start vLLM
themselves; clients expect their dialect's error, and users what they can do about it.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import errors, http_errors, routes
from deployments import engine_stats

BARE = ({"detail": "Not Found"}, {"detail": "Method Not Allowed"})
NO_TEMPLATE = "default chat template is no longer allowed"
"""In what vLLM says of a model without a chat template."""
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
            if message["type"] == "http.response.start" and message["status"] in (400, 404, 405):
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
            start = {"type": "http.response.start", "status": http_errors.status_of(error), "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": content})

    def _meant(self, scope: Scope, status: int, content: bytes) -> errors.MoorageError | None:
        """The error in our words, or None where the engine's own say enough."""
        if status == 400:
            return errors.InvalidRequest(SET_TEMPLATE, param="messages") if NO_TEMPLATE.encode() in content else None
        if _parsed(content) not in BARE:
            return None
        has = f" It has: {', '.join(self._stats.routes)}." if self._stats.routes else ""
        return errors.NotFound(f"The engine of this model has no route {scope['method']} {scope['path']}.{has}")


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
