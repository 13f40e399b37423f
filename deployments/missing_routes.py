"""Words for routes that the edge allows but this model's engine does not have (chat on an embedding model, say).

Engines answer those with their framework's bare `{"detail": "Not Found"}`; clients expect their dialect's error.
"""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import errors, http_errors

BARE = ({"detail": "Not Found"}, {"detail": "Method Not Allowed"})


class MissingRoutes:
    """Wraps an engine's application. Answers other than the framework's own 404 and 405 pass as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        content = b""

        async def look(message: Message) -> None:
            nonlocal held, content
            if message["type"] == "http.response.start" and message["status"] in (404, 405):
                held = message
            elif held is None:
                await send(message)
            else:
                content += message.get("body", b"")
                if not message.get("more_body"):
                    await _worded(scope, held, content, send)

        await self._app(scope, receive, look)


async def _worded(scope: Scope, start: Message, content: bytes, send: Send) -> None:
    if _is_bare(content):
        error = errors.NotFound(f"The engine of this model has no route {scope['method']} {scope['path']}.")
        content = json.dumps(http_errors.openai_body(error)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        start = {"type": "http.response.start", "status": 404, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": content})


def _is_bare(content: bytes) -> bool:
    try:
        return json.loads(content) in BARE
    except ValueError:
        return False
