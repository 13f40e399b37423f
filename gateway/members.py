"""Endpoints with several models, at the edge: each member is a slot of its own, called `namespace/name:member`.

The bare `namespace/name` means the primary member. HAProxy chooses by maps made here; what it cannot read, `choose` reads on
the slow path, by the same rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from cluster import errors, snapshot


def base(path: str) -> str:
    """The endpoint's ns/name of a slot's path."""
    return path.partition(":")[0]


def slots(endpoints: Mapping[str, snapshot.Endpoint]) -> Mapping[str, snapshot.Endpoint]:
    """Path -> row of every slot: an endpoint without members is its own, one with members is a row for each."""
    several = [row for row in endpoints.values() if row.members]
    if not several:
        return endpoints
    found = {path: row for path, row in endpoints.items() if not row.members}
    for row in several:
        found.update((one.path, one) for one in (slot(row, member.name) for member in row.members))
    return found


def slot(row: snapshot.Endpoint, name: str) -> snapshot.Endpoint:
    """The endpoint as if that member were all it has. Raises ModelNotFound."""
    member = next((one for one in row.members if one.name == name), None)
    if member is None:
        has = ", ".join(one.name for one in row.members)
        raise errors.ModelNotFound(f"{row.name} has no member of that name: it has {has}.", param="model")
    replicas = tuple(replica for replica in row.replicas if replica.member == name)
    takes = [replica.max_concurrency for replica in replicas if not replica.draining]
    return dataclasses.replace(
        row,
        name=f"{row.name}:{name}",
        replicas=replicas,
        members=(),
        task=member.task,
        default_route=member.default_route,
        max_concurrency=sum(takes) + row.max_queue if takes and min(takes) > 0 else 0,
    )


def find(now: snapshot.Snapshot, path: str) -> snapshot.Endpoint | None:
    """The row of `ns/name`, or of the slot `ns/name:member`; None when there is none."""
    row = now.endpoints.get(path)
    name = path.partition(":")[2]
    if row is not None or not name:
        return row
    row = now.endpoints.get(base(path))
    return slot(row, name) if row is not None and any(member.name == name for member in row.members) else None


def choose(row: snapshot.Endpoint, model: str = "", expert: str = "", *, shared: bool = False) -> snapshot.Endpoint:
    """The slot that a request means: `select_expert`, else the `model` that names a member, else the primary one.

    A request of the endpoint's own URL may name anything as its model; only `name:member` must exist then. On a shared URL (`shared`)
    `name:member` settles it, whatever else is said: HAProxy looks no further there. Raises ModelNotFound.
    """
    if not row.members:
        return row
    named = (f"{row.name}:", f"{row.path}:")
    prefix = next((text for text in named if model.startswith(text)), "")
    if shared and not prefix:
        model = ""  # it has named the endpoint
    if expert and not (shared and prefix):
        model, prefix = expert, next((text for text in named if expert.startswith(text)), "")
    if prefix or expert or any(member.name == model for member in row.members):
        return slot(row, model.removeprefix(prefix))
    return slot(row, row.members[0].name)


def asked(endpoints: Mapping[str, snapshot.Endpoint]) -> dict[str, str]:
    """HAProxy's map of members: `ns/name|what was asked for` -> the slot's path."""
    rows = (row for row in endpoints.values() if row.members)
    return {
        f"{row.path}|{said}": f"{row.path}:{member.name}" for row in rows for member in row.members for said in _names(row, member.name)
    }


def listed(row: snapshot.Endpoint, called: str) -> list[str]:
    """What /v1/models lists of an endpoint that the asking key calls `called`: itself and its members."""
    return [called, *(f"{called}:{member.name}" for member in row.members)]


def _names(row: snapshot.Endpoint, member: str) -> Iterator[str]:
    yield from (member, f"{row.name}:{member}", f"{row.path}:{member}")
