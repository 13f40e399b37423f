"""The shapes of answers about named secrets and integrations: of what they hold, nothing; see `cluster.api.schemas`."""

from __future__ import annotations

from typing import Literal

from cluster.api.schemas import Answer


class Secret(Answer):
    """A named secret. Its value is in no answer; `usedBy` names the endpoints that refer to it."""

    name: str
    namespace: str
    description: str
    owner: str
    used_by: list[str]
    created_at: str
    updated_at: str


class Integration(Secret):
    """Named credentials of one kind. `fields` names those that are set, without their values."""

    kind: Literal["huggingface", "s3", "registry"]
    fields: list[str]


class Resealed(Answer):
    """How many values are now sealed under the newest key."""

    values: int
