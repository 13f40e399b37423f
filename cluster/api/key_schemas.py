"""The shapes of answers about endpoints' keys; see `cluster.api.schemas`."""

from __future__ import annotations

from typing import Literal

from cluster.api.schemas import Answer
from cluster.limits import Period


class EndpointKey(Answer):
    """A key of an endpoint, without its text. Limits of 0 are none; `expiresAt` null = never; `lastUsedAt` is null until its first use."""

    id: str
    endpoint_id: str
    description: str
    status: Literal["active", "revoked", "expired"]
    first: bool
    owner: str
    requests_per_minute: int
    tokens_per_minute: int
    tokens_per_day: int
    concurrency: int
    budget: float
    budget_period: Period
    created_at: str
    updated_at: str
    last_used_at: str | None
    expires_at: str | None
    replaced_by: str | None
    """The key that a rotation made in its place."""
    warnings: list[str] | None = None
    """Of a change: what its user should know."""


class NewEndpointKey(EndpointKey):
    """The answer to making or rotating a key: the only time that its text is shown."""

    key: str
