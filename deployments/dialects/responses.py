"""Stored responses: each gets an id that names the replica which keeps it, so that the edge finds it again; `Kept` bounds what is kept.

OpenAI's protocol says no word about where a response lies. vLLM keeps it in the memory of one server, without end.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.dialects import inner

ROUTE = "/v1/responses"
MOST_KEPT = 1000
"""Responses that one server keeps; the oldest goes first."""


class Dialect:
    """ASGI application in front of `app`, the engine's own. A client's own `request_id` is replaced: it could be another's."""

    def __init__(self, app: ASGIApp, replica: str | None = None, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        """`replica` is the name that the edge has for this server (MOORAGE_REPLICA); without one ids are the engine's own."""
        self._app = app
        self._replica = os.environ.get("MOORAGE_REPLICA", "") if replica is None else replica
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", ROUTE) or not self._replica:
            await self._app(scope, receive, send)
            return
        try:
            body = self._named(await inner.read_body(receive))
        except inner.ClientGone:
            return
        except inner.BodyTooLarge as exc:
            await inner.answer_json(send, 413, inner.openai_error(413, str(exc.__doc__)))
            return
        await self._app(inner.request(scope, "POST", ROUTE, body), inner.replay(body, receive), send)

    def _named(self, body: bytes) -> bytes:
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return body  # the engine says what is wrong with it
        if not isinstance(request, dict):
            return body
        return json.dumps({**request, "request_id": f"resp_{self._replica}_{self._new_id()}"}, ensure_ascii=False).encode()


class Kept(dict[str, Any]):
    """What vLLM keeps by response id, `most` of them: with the oldest goes what `beside` has of it."""

    def __init__(self, most: int = MOST_KEPT, beside: tuple[MutableMapping[str, Any], ...] = ()) -> None:
        super().__init__()
        self._most = most
        self._beside = beside

    def __setitem__(self, identity: str, item: Any) -> None:
        super().__setitem__(identity, item)
        while len(self) > self._most:
            oldest = next(iter(self))
            del self[oldest]
            for other in self._beside:
                other.pop(oldest, None)
