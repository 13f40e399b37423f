"""Why tenants, namespaces and users cannot be changed as asked, and what those that are gone are called: the same from every store."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import errors, records, roles

SHOWN = 5
"""So many names of what stands in the way are told; of the rest the number."""


def former(name: str, at: float) -> str:
    """What the use of a tenant or namespace is kept under from the time on at which a namesake was made. No name can be that."""
    return f"{name} (until {datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%dT%H:%M:%SZ})"


def deleted(user: str) -> str:
    """What stands for a user who is deleted, where something is his. Nobody can be called so."""
    return f"{user} (deleted)"


def missing(kind: str, name: str) -> errors.NotFound:
    """`kind` is tenant, namespace or user."""
    return errors.NotFound(f"There is no {kind} {name[:60]!r}.")


def taken(kind: str, name: str) -> errors.AlreadyExists:
    """Somebody has that name, perhaps in another tenant."""
    return errors.AlreadyExists(f"The name {name!r} is taken: choose another one for the {kind}.")


def refuse_full(kind: str, name: str, contents: Mapping[str, Sequence[str]]) -> None:
    """Raises Conflict when there is anything in it. `contents`: what kind of thing -> their names."""
    parts = [f"{what} {_listed(names)}" for what, names in contents.items() if names]
    if parts:
        raise errors.Conflict(f"The {kind} {name} is not empty, delete first what is in it: {'; '.join(parts)}.")


def is_operator(user: records.User) -> bool:
    """Whether it may act as one now."""
    return user.role == roles.OPERATOR and user.active


def refuse_last_operator(before: records.User, changes: Mapping[str, Any] | None, others: int) -> None:
    """Raises Conflict when `before` is the last active operator and would be none. `changes` None = it is deleted."""
    stays = changes is not None and changes.get("role", before.role) == roles.OPERATOR and changes.get("active", before.active)
    if is_operator(before) and not stays and others == 0:
        raise errors.Conflict(f"{before.name} is the last active operator: make another one first.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
