"""The shapes of answers about tenants, namespaces, users and platform keys, for the API's description."""

from __future__ import annotations

from typing import Literal

from cluster.api.schemas import Answer

Role = Literal["viewer", "member", "admin", "operator"]


class Tenant(Answer):
    """An organisation that shares the platform with others."""

    name: str
    description: str
    created_at: str


class Namespace(Answer):
    """A project of a tenant, in which endpoints and models lie."""

    name: str
    tenant: str
    description: str
    created_at: str


class User(Answer):
    """A person or a service account. `namespaces` empty: all of its tenant; `active` false: its keys are refused."""

    name: str
    kind: Literal["person", "service"]
    tenant: str
    namespace: str
    role: Role
    namespaces: list[str]
    active: bool
    description: str
    created_at: str
    updated_at: str


class PlatformKey(Answer):
    """A platform key without its text; limits of 0 are none. `user` may do as much by it as `role` says, if its own role allows.

    `expiresAt` null: never; `replacedBy` is the key that a rotation made in its place.
    """

    id: str
    user: str
    owner: str
    role: str
    namespace: str
    description: str
    status: Literal["active", "revoked", "expired"]
    requests_per_minute: int
    tokens_per_minute: int
    tokens_per_day: int
    concurrency: int
    budget: float
    budget_period: str
    created_at: str
    updated_at: str
    last_used_at: str | None
    expires_at: str | None
    replaced_by: str | None
    warnings: list[str] | None = None
    """Of a change: what its user should know."""


class NewPlatformKey(PlatformKey):
    """The answer to making or rotating a key: the only time that its text is shown."""

    key: str


class Shared(Answer):
    """An endpoint of another tenant that one may call."""

    name: str
    namespace: str
    url: str | None
    task: str | None
    description: str
    state: str


class Organisation(Answer):
    """Another namespace that the key may use."""

    type: Literal["org"]
    name: str


class WhoAmI(Answer):
    """Who a key belongs to, as huggingface_hub reads it (`name` is the home namespace), and what it may do."""

    type: Literal["user"]
    name: str
    fullname: str
    orgs: list[Organisation]
    url: str
    role: Role
    tenant: str
