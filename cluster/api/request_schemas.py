"""The shapes of answers about requests."""

from __future__ import annotations

from typing import Any

from cluster.api import schemas


class Tokens(schemas.Answer):
    """As the engine counted them; `cached` are those of the prompt that its prefix cache had."""

    prompt: int
    completion: int
    cached: int


class Engine(schemas.Answer):
    """What the engine says of the request: seconds until it began, until the first token, and in all."""

    outcome: str
    model: str
    adapter: str | None
    queue_seconds: float
    first_token_seconds: float
    total_seconds: float


class Request(schemas.Answer):
    """One request, as the edge saw it; `at` is when it ended. `status` null: nobody was there any more to be answered.

    `outcome` is how it ended and `ended` that in words. `tokens` and `engine` are null for what never came to an engine.
    """

    id: str
    at: str
    client: str
    key: str | None
    tenant: str | None
    endpoint: str | None
    member: str | None
    revision: int | None
    replica: str | None
    method: str
    path: str
    status: int | None
    code: str | None
    outcome: str
    ended: str
    tries: int
    queue_seconds: float | None
    first_byte_seconds: float | None
    total_seconds: float
    bytes_in: int
    bytes_out: int
    tokens: Tokens | None
    engine: Engine | None


class Where(schemas.Answer):
    """Where else the request's id is found."""

    edge: str
    logs: str | None
    prompt: str | None


class WholeRequest(Request):
    """One request with all that is known: the edge's own line, and the lines of the replica and the engine that have its id."""

    edge: dict[str, Any]
    logs: list[schemas.LogLine]
    where: Where


class RequestPage(schemas.Answer):
    """Newest first. `cursor` goes on from there, null after the last; `lookedTo` is the time up to which was searched.

    A page may be short, or empty, and have a cursor: no call searches without end.
    """

    items: list[Request]
    cursor: str | None
    looked_to: str | None


class Prompt(schemas.Answer):
    """What was kept of a request, with everything struck out that was to be. `prompt` is JSON, cut where it was too long."""

    id: str
    at: str
    path: str
    prompt: str
    answer: str | None
    truncated: bool
