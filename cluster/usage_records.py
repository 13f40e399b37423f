"""Rows of metering: what requests used, what hardware was held for endpoints, and sums of both. Times are Unix seconds, days UTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "day": ("day",),
    "namespace": ("namespace",),
    "endpoint": ("namespace", "endpoint"),
    "revision": ("namespace", "endpoint", "revision"),
    "key": ("key",),
    "model": ("model",),
    "adapter": ("adapter",),
    "tenant": ("tenant",),
}
"""What use may be summed up by, and the columns that stand for it."""
OF_CAPACITY = frozenset({"day", "namespace", "endpoint", "revision"})
"""Those that hardware can be told apart by: a replica serves all keys, models and tenants at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amounts:
    """What requests used, one or many."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    images: int = 0
    share_s: float = 0.0
    accelerator_s: float = 0.0
    """`share_s` times the accelerators of a replica."""
    cost: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums(Amounts):
    """Of many, with how they ended."""

    finished: int = 0
    aborted: int = 0
    failed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """Hardware that was held. Seconds of all replicas together."""

    accelerator_s: float = 0.0
    """Replica-seconds times a replica's accelerators."""
    ready_s: float = 0.0
    """Ready, with or without something to do."""
    starting_s: float = 0.0
    """From its place on a node until it is ready: downloading, loading, warming."""
    hourly_cost: float = 0.0
    committed_cost: float = 0.0
    zeros: int = 0
    """How often it went to zero for being idle."""
    zero_wait_s: float = 0.0
    """Replica-seconds of waiting for that: what a shorter scaleToZeroTimeout would have saved a part of."""
    zero_wait_cost: float = 0.0


@dataclasses.dataclass(frozen=True)
class UsageRow(Amounts):
    """One request, as stored: `cluster.messages.Usage`, whose it was, and what it cost. Kept for MOORAGE_USAGE_DAYS."""

    id: str
    namespace: str
    endpoint: str
    revision: int
    replica: str
    member: str = ""
    key: str = ""
    tenant: str = ""
    route: str = ""
    model: str = ""
    """As the request named it."""
    served: str = ""
    """What answered: the member, else the revision's repository, else the engine."""
    adapter: str = ""
    outcome: str = "finished"
    status: int = 200
    started_at: float = 0.0
    ended_at: float = 0.0
    queue_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    stored_at: float = 0.0

    @property
    def path(self) -> str:
        """`namespace/name` of the endpoint."""
        return f"{self.namespace}/{self.endpoint}"

    @property
    def tokens(self) -> int:
        """What counts against limits."""
        return self.prompt_tokens + self.completion_tokens


@dataclasses.dataclass(frozen=True)
class UsageDay(Sums):
    """Requests of one day added up, kept for ever."""

    day: str
    """`2026-01-31`, of the moment at which they ended."""
    tenant: str
    """Of the keys; '' without a key."""
    namespace: str
    endpoint: str
    revision: int
    key: str
    model: str
    """`UsageRow.served`."""
    adapter: str


@dataclasses.dataclass(frozen=True)
class CapacityDay(Hardware):
    """Hardware that was held for one revision of an endpoint during one day, kept for ever."""

    day: str
    namespace: str
    endpoint: str
    revision: int
    instance_type: str
    instance_size: str


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a key or an endpoint has used up of its limits."""

    tokens: int = 0
    cost: float = 0.0


@dataclasses.dataclass(frozen=True)
class Scope:
    """Whose use may be seen: that in these namespaces, and that of the tenant's keys wherever ('' = of none)."""

    namespaces: frozenset[str]
    tenant: str = ""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Sums of the days `since` to `until` (both included), told apart `by` names of GROUPS. None = any."""

    since: str
    until: str
    by: tuple[str, ...] = ()
    scope: Scope | None = None
    namespace: str | None = None
    endpoint: str | None = None
    key: str | None = None
    model: str | None = None
    adapter: str | None = None
    tenant: str | None = None
    first_revision: int = 0
    """Only this one and later ones: what an endpoint used, and not an earlier one of its name."""
    limit: int = 1000
    offset: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that groups consist of, each once."""
        return tuple(dict.fromkeys(column for name in self.by for column in GROUPS[name]))

    @property
    def of_capacity(self) -> Asked:
        """The same question, told apart only by what hardware can be told apart by."""
        return dataclasses.replace(self, by=tuple(name for name in self.by if name in OF_CAPACITY))


@dataclasses.dataclass(frozen=True)
class Used(Sums):
    """A group's sums. `group` holds the values of `Asked.columns`, as text."""

    group: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Held(Hardware):
    """A group's sums of hardware."""

    group: Mapping[str, str]
