"""The shapes of answers about usage, for the API's description; see `cluster.api.schemas`."""

from __future__ import annotations

from typing import Literal

from cluster.api.schemas import Answer


class Group(Answer):
    """What a sum is of; only the fields that were asked for (`by`) are there."""

    day: str | None = None
    namespace: str | None = None
    endpoint: str | None = None
    revision: int | None = None
    key: str | None = None
    key_description: str | None = None
    model: str | None = None
    adapter: str | None = None
    tenant: str | None = None


class UsedSum(Group):
    """Requests added up. `key` and `tenant` are '' for requests without a key; `busySeconds` are replica-seconds that were the
    requests' own, `acceleratorSeconds` the same times the accelerators of a replica, `cost` at the price of the hardware table."""

    requests: int
    finished: int
    aborted: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    images: int
    busy_seconds: float
    accelerator_seconds: float
    cost: float


class HeldSum(Group):
    """Hardware that was held. Seconds are those of all replicas together: busy, idle (ready without work) and starting.

    `cost` is what the plan charges; `idleBeforeZero...` is the waiting before each of `scaledToZero` times: a shorter
    scaleToZeroTimeout would have saved that part of it by which it is shorter.
    """

    replica_seconds: float
    accelerator_seconds: float
    busy_seconds: float
    idle_seconds: float
    starting_seconds: float
    idle_share: float
    starting_share: float
    hourly_cost: float
    committed_cost: float
    cost: float
    scaled_to_zero: int
    idle_before_zero_seconds: float
    idle_before_zero_cost: float


class Capacity(Answer):
    """Hardware by day, namespace, endpoint and revision, as far as these were asked for."""

    items: list[HeldSum]
    total: HeldSum


class Usage(Answer):
    """What was used on the days from `since` to `until`, both included. `cursor` asks for more groups.

    `capacity` is null where only some requests were asked for: a replica serves all keys and models at once.
    """

    since: str
    until: str
    currency: str
    items: list[UsedSum]
    cursor: str | None
    total: UsedSum
    capacity: Capacity | None


class LimitState(Answer):
    """A limit. `used` null: the edge counts it, minute by minute; `resets` null: it does not begin anew by itself."""

    limit: Literal["requestsPerMinute", "concurrency", "tokensPerMinute", "tokensPerDay", "budget"]
    most: float
    used: float | None
    left: float | None
    exceeded: bool
    resets: str | None


class LimitedKey(Answer):
    """A key that has limits."""

    id: str
    description: str
    limits: list[LimitState]


class Limited(Answer):
    """How much is left of an endpoint's own limits (of all its callers together), and of those of its keys."""

    currency: str
    limits: list[LimitState]
    keys: list[LimitedKey]
