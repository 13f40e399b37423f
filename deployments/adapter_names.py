"""What a request's `model` means in a server with adapters: the base model, one adapter, or nothing that there is.

The supervisor says which adapters the endpoint has and how far each is (`Names.tell`); the engine asks `adapter_of`. A name
that is or was an adapter's never means the base model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import errors, http_errors, routes

MANAGING = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""Routes of engines that load and unload: the supervisor's alone."""
READY, PENDING, FAILED = "ready", "pending", "failed"
PENDING_RETRY_S = 2.0


class Refused(ValueError):
    """The model that was asked for cannot answer; `error` says why. Engines turn a ValueError into an answer, `Refusals` words it."""

    def __init__(self, error: errors.MoorageError) -> None:
        self.error = error
        super().__init__(error.message)


class Names:
    """The names of one server's endpoint."""

    def __init__(self, endpoint: str, member: str = "") -> None:
        """`endpoint` is namespace/name. A `member` of one has no adapters: every name that the edge lets through to it means its model."""
        self.path = endpoint
        self.member = member
        self.name = endpoint.rpartition("/")[2]
        self._adapters: Mapping[str, Mapping[str, str]] = {}
        self._retired: frozenset[str] = frozenset()

    def tell(self, adapters: Mapping[str, Mapping[str, str]], retired: Iterator[str] | list[str]) -> None:
        """`adapters`: name -> {"state": READY, PENDING or FAILED, "message"}; `retired`: names that were adapters once."""
        self._adapters = dict(adapters)
        self._retired = frozenset(retired)

    def bare(self, model: str) -> str:
        """`model` without this endpoint's own name and colon."""
        prefix, colon, rest = model.partition(":")
        return rest if colon and prefix in (self.name, self.path) else model

    def adapter_of(self, model: str) -> str | None:
        """The adapter that `model` means, None for the base model. Raises Refused."""
        if self.member:
            return None
        wanted = self.bare(model)
        found = self._adapters.get(wanted)
        if found is None:
            if wanted != model or wanted in self._retired:
                raise _refused(errors.ModelNotFound(f"{self.name} has no adapter {wanted[:64]!r}.", param="model"))
            return None
        if found["state"] == PENDING:
            raise _refused(errors.Starting(f"The adapter {wanted} is being loaded.", retry_after=PENDING_RETRY_S))
        if found["state"] == FAILED:
            raise _refused(errors.Failed(f"The adapter {wanted} could not be loaded: {found['message']}"))
        return wanted

    def listed(self) -> list[str]:
        """The adapters that can be asked for, as clients write them anywhere."""
        return [f"{self.name}:{name}" for name in self._adapters]


CURRENT = Names(os.environ.get("MOORAGE_ENDPOINT", ""), os.environ.get("MOORAGE_MEMBER", ""))
"""Of this server process: the engine and the guard each load this module, so it is the place where they meet."""

_REFUSAL: ContextVar[list[errors.MoorageError] | None] = ContextVar("refusal", default=None)
_MANAGED: ContextVar[bool] = ContextVar("managed", default=False)


def managed() -> bool:
    """Whether the present request loads or unloads an adapter: its name is no `model` that somebody asks for."""
    return _MANAGED.get()


class Refusals:
    """Wraps an engine's application: an answer to a request that `Names` refused gets the refusal's own words and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusals: list[errors.MoorageError] = []
        replaced = False

        async def worded(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] >= 400 and refusals:
                replaced = True
                await _answer(send, refusals[0], routes.dialect_of_engine(scope["path"]))
            elif not replaced:
                await send(message)

        with _request(refusals, managed=scope["path"] in MANAGING):
            await self._app(scope, receive, worded)


@contextmanager
def _request(refusals: list[errors.MoorageError], *, managed: bool) -> Iterator[None]:
    tokens = _REFUSAL.set(refusals), _MANAGED.set(managed)
    try:
        yield
    finally:
        _REFUSAL.reset(tokens[0])
        _MANAGED.reset(tokens[1])


def _refused(error: errors.MoorageError) -> Refused:
    refusals = _REFUSAL.get()
    if refusals is not None:
        refusals.append(error)
    return Refused(error)


async def _answer(send: Send, error: errors.MoorageError, dialect: str) -> None:
    content = json.dumps(http_errors.BODY_OF_DIALECT[dialect](error)).encode()
    own: dict[str, Any] = {"content-type": "application/json", "content-length": str(len(content)), **http_errors.headers(error)}
    headers = [(name.lower().encode(), str(value).encode()) for name, value in own.items()]
    await send({"type": "http.response.start", "status": http_errors.status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": content})
