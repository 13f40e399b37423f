"""Request bodies on the slow path: read within bounds, and the `model` found in them."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from cluster import errors, pace
from gateway import scanning


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
        """The whole body. Raises TooLarge, Unavailable (budget), BodyTimeout or ClientGone."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(began + pace.seconds(0)) as limit:
                while await self._read_part(receive):
                    limit.reschedule(began + pace.seconds(self._size))
        except TimeoutError:
            raise errors.BodyTimeout from None
        whole = b"".join(self._parts)
        self._parts = []
        return whole

    def close(self) -> None:
        """Gives the bytes back to the budget."""
        self._budget.give(self._size)
        self._parts, self._size = [], 0

    async def _read_part(self, receive: Receive) -> bool:
        """Whether there is more."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._add(message.get("body", b""))
        return bool(message.get("more_body", False))

    def _add(self, part: bytes) -> None:
        if self._size + len(part) > self._limit:
            raise errors.TooLarge(f"The request body is over the limit of {self._limit // 2**20} MiB.")
        self._budget.take(len(part))
        self._size += len(part)
        self._parts.append(part)


EXPERT = (("select_expert",), ("params", "select_expert"), ("params", "select_expert", "value"))
"""Where a request may name an expert."""


def members_named(body: bytes, content_type: str) -> tuple[str, str]:
    """`model` and `select_expert` of a JSON object or a multipart form, '' where it has none: nobody has to name a member.

    SambaStudio's requests have the latter among their params, in either version's form.
    What is no JSON object is the engine's to refuse. Raises InvalidRequest.
    """
    if content_type.startswith("multipart/form-data"):
        return scanning.form_field(body, content_type, "model") or "", scanning.form_field(body, content_type, "select_expert") or ""
    if body[:1000].lstrip()[:1] != b"{":
        return "", ""
    try:
        model = scanning.member(body, "model")
        expert = next((found for path in EXPERT if isinstance(found := scanning.member(body, *path), str)), "")
    except scanning.Unreadable as exc:
        raise errors.InvalidRequest(str(exc)) from None
    return model if isinstance(model, str) else "", expert


def model_of(body: bytes, content_type: str) -> str:
    """The `model` that a JSON object or a multipart form names. Raises InvalidRequest."""
    try:
        form = content_type.startswith("multipart/form-data")
        model = scanning.form_field(body, content_type, "model") if form else scanning.member(body, "model")
    except scanning.Unreadable as exc:
        raise errors.InvalidRequest(str(exc)) from None
    if not isinstance(model, str) or not model:
        raise errors.InvalidRequest("Name the endpoint in `model`: its name, or namespace/name.", param="model")
    return model
