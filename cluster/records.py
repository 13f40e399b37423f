"""Rows of the store: frozen, lenient about what an older version wrote. Times are Unix seconds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

from cluster import limits
from cluster import spec as specs

Desired = Literal["running", "paused"]
Source = Literal["api", "declarative"]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """What is wanted of one endpoint.

    `spec` is EndpointSpec's wire form without secret values. `awake` False = scaled to zero until the next request.
    `serving` is the revision that gets the traffic (None before the first success), `target` the newest one.
    `generation` counts every change and guards against stale writers.
    """

    id: str
    namespace: str
    name: str
    spec: Mapping[str, Any]
    target: int
    serving: int | None = None
    desired: Desired = "running"
    awake: bool = True
    generation: int = 1
    source: Source = "api"
    created_at: float = 0.0
    updated_at: float = 0.0
    created_by: str = ""
    updated_by: str = ""
    last_request_at: float | None = None
    load_seconds: float | None = None
    """Learned time from a cold start to ready; None before the first."""
    restarts: int = 0
    """Counts restart and retry commands: part of the application's version, so that one more means new replicas."""
    first_revision: int = 0
    """Its lowest revision, given by the store: what has a lower one was of an earlier endpoint of that name."""

    @property
    def path(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @functools.cached_property
    def parsed(self) -> specs.EndpointSpec:
        """The spec as a typed object, parsed once. Unknown fields of another version are dropped."""
        return specs.EndpointSpec.model_validate(dict(self.spec), extra="ignore")

    def forget_parsed(self) -> None:
        """Gives back its 9 KB, for rows that are kept and seldom looked at; `parsed` makes it anew when it is needed."""
        vars(self).pop("parsed", None)


@dataclasses.dataclass(frozen=True)
class Revision:
    """One immutable version of what an endpoint's replicas run (`EndpointSpec.revision_fields()`), and how it fared."""

    endpoint_id: str
    number: int
    fields: Mapping[str, Any]
    created_at: float = 0.0
    created_by: str = ""
    live_at: float | None = None
    """When it first became ready and got the traffic."""
    failed_at: float | None = None
    reason: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Key:
    """An API key without its secret. `first` marks the endpoint's First Key, which is neither edited nor revoked."""

    id: str
    digest: str = dataclasses.field(repr=False)
    kind: str
    namespace: str
    description: str = ""
    endpoint_id: str | None = None
    first: bool = False
    owner: str = ""
    """Name of the user whom a platform key acts for; who made an endpoint's key."""
    status: Literal["active", "revoked", "expired"] = "active"
    """`expired` follows its `expires_at` a moment later: ask `cluster.expiry.status`."""
    requests_per_minute: int = 0
    concurrency: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    last_used_at: float | None = None
    role: str = ""
    """Of a platform key: the most that it may do (`cluster.roles`), whatever more its user may; '' for an endpoint's key."""
    expires_at: float | None = None
    """From then on it is refused, like a revoked one."""
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    budget: float = 0.0
    budget_period: limits.Period = "month"
    replaced_by: str = ""
    """The key that a rotation made in its place."""


@dataclasses.dataclass(frozen=True)
class Tenant:
    """An organisation that shares the platform with others: it has users and namespaces, and sees nothing of other tenants."""

    name: str
    description: str = ""
    created_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Namespace:
    """A project of a tenant: endpoints, models and integrations lie in one."""

    name: str
    tenant: str
    description: str = ""
    created_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class User:
    """A person or a service account; belongs to one tenant. Acts by platform keys."""

    name: str
    """Unique on the platform."""
    tenant: str
    namespace: str
    """Where it is at home: what a bare model name means, and where its keys lie."""
    kind: Literal["person", "service"] = "person"
    role: str = "member"
    """See `cluster.roles`."""
    namespaces: tuple[str, ...] = ()
    """The projects it may act in beside its home; () = all of its tenant."""
    active: bool = True
    """False: all its keys are refused."""
    description: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Credential:
    """A named secret or integration of a namespace: credentials that endpoints refer to by name (`cluster.credentials`)."""

    namespace: str
    shelf: Literal["secret", "integration"]
    """Secrets and integrations have names of their own."""
    name: str
    kind: str = ""
    """Of an integration: a key of `cluster.credentials.KINDS`."""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Field -> sealed value."""
    description: str = ""
    owner: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Event:
    """Something worth telling about an endpoint: a command, a phase of a revision or replica, a failure with its reason."""

    endpoint_id: str
    at: float
    kind: str
    message: str = ""
    level: Literal["info", "warning", "error"] = "info"
    revision: int | None = None
    replica: str = ""
    reason: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    id: int = 0
    """Given by the store, ascending."""


@dataclasses.dataclass(frozen=True)
class EventsWanted:
    """Which events: with an id over `after` and under `before`, from `since` to `until` (Unix seconds), and like what is given.

    `text` is in the message, in whatever case.
    """

    after: int = 0
    before: int | None = None
    since: float = 0.0
    until: float | None = None
    level: str | None = None
    kind: str | None = None
    replica: str | None = None
    text: str | None = None


@dataclasses.dataclass(frozen=True)
class Replica:
    """A server that announced itself ready; valid while Serve still runs the replica of that id."""

    id: str
    application: str
    endpoint_id: str
    revision: int
    host: str
    port: int
    max_concurrency: int
    capabilities: tuple[str, ...] = ()
    load_seconds: float = 0.0
    announced_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of a namespace's registry: a name for versions. `last_version` is the highest number ever given."""

    namespace: str
    name: str
    description: str = ""
    owner: str = ""
    last_version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """Where one version of a model lies; never changed afterwards. `version` 0 = the next number."""

    namespace: str
    name: str
    version: int
    repository: str
    revision: str | None = None
    """The commit, for repositories of the Hub."""
    task: str = ""
    architecture: str = ""
    description: str = ""
    created_by: str = ""
    created_at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What an engine said when it loaded a model on an instance, with settings of that signature. The newest one is kept."""

    repository: str
    revision: str
    """'' = the main branch."""
    instance_type: str
    instance_size: str
    settings: str
    data: Mapping[str, float]
    at: float = 0.0


@dataclasses.dataclass(frozen=True)
class Remembered:
    """The answer given to a POST with an Idempotency-Key, to be given again."""

    scope: str
    key: str
    body_digest: str
    status: int
    body: str
    created_at: float


@dataclasses.dataclass(frozen=True)
class Audit:
    """A row of the audit log: who did what from where, or tried to. Never changed, never deleted."""

    seq: int
    """Its place in the log, from 1 without gaps; 0 = not appended yet."""
    at: float
    actor: str
    """The user, or what else the key's owner is called."""
    tenant: str
    role: str
    key_id: str
    source: str
    """Address that the request came from, as the edge saw it; 'local' for commands on the platform's own machine."""
    request_id: str
    action: str
    """Like `endpoint.update`."""
    resource: str
    """Like `namespace/name`."""
    namespace: str
    outcome: Literal["done", "refused"]
    status: int
    """The HTTP status of the answer."""
    detail: str
    """JSON: `changed` with before and after of each field, or `code` of the refusal. No secret values, no key texts."""
    previous: str = ""
    """The hash of the row before it."""
    hash: str = ""
