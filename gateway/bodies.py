"""Request bodies on the slow path: read within bounds, and the `model` found in them."""

from __future__ import annotations

import email.parser
import email.policy
import json
from typing import Any

from starlette.types import Receive

from cluster import errors


class ClientGone(Exception):
    """The client went away while its body was read."""


class Budget:
    """Bytes of request bodies that may be in memory at once, over all requests."""

    def __init__(self, total: int) -> None:
        self._free = total

    def take(self, size: int) -> None:
        """Raises Unavailable when too much is held already."""
        if size > self._free:
            raise errors.Unavailable("Too many large requests are waiting: try again.", retry_after=1)
        self._free -= size

    def give(self, size: int) -> None:
        """Returns what was taken."""
        self._free += size


class Body:
    """A request's body, charged to a budget until `close`."""

    def __init__(self, budget: Budget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    async def read(self, receive: Receive) -> bytes:
        """The whole body. Raises TooLarge, Unavailable (budget) or ClientGone."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self._add(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(self._parts)

    def close(self) -> None:
        """Gives the bytes back to the budget."""
        self._budget.give(self._size)
        self._parts, self._size = [], 0

    def _add(self, part: bytes) -> None:
        if self._size + len(part) > self._limit:
            raise errors.TooLarge(f"The request body is over the limit of {self._limit // 2**20} MiB.")
        self._budget.take(len(part))
        self._size += len(part)
        self._parts.append(part)


def model_of(body: bytes, content_type: str) -> str:
    """The `model` that a JSON object or a multipart form names. Raises InvalidRequest."""
    model = _form_field(body, content_type, "model") if content_type.startswith("multipart/form-data") else _json_model(body)
    if not isinstance(model, str) or not model:
        raise errors.InvalidRequest("Name the endpoint in `model`: its name, or namespace/name.", param="model")
    return model


def _json_model(body: bytes) -> Any:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise errors.InvalidRequest("The body is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise errors.InvalidRequest("The body must be a JSON object.")
    return parsed.get("model")


def _form_field(body: bytes, content_type: str, field: str) -> str | None:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in form.iter_parts() if form.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == field:
            content = part.get_payload(decode=True)
            return content.decode("utf-8", "replace").strip() if isinstance(content, bytes) else None
    return None
