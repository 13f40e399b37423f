"""Who may open an endpoint further: to other tenants, other networks, or everybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cluster import errors, records, snapshot
from cluster import spec as specs
from cluster.actor import Actor

OPENNESS = (snapshot.PRIVATE, snapshot.AUTHENTICATED, snapshot.PUBLIC)
EVERYBODY = "*"


def check_change(actor: Actor, endpoint: records.Endpoint, after: specs.EndpointSpec) -> None:
    """Members change what others made, but not who may call it. Raises Forbidden."""
    before = endpoint.parsed
    opened = OPENNESS.index(after.type) > OPENNESS.index(before.type)
    found = {"sharedWith": after.shared_with != before.shared_with, "networks": after.networks != before.networks, "type": opened}
    changed = [name for name, value in found.items() if value]
    if changed and not actor.decides(endpoint.created_by):
        owner = endpoint.created_by or "nobody"
        text = f"{changed[0]} says who may call it: that is for {owner}, whose endpoint it is, or an admin of its tenant to change."
        raise errors.Forbidden(text, param=changed[0])


def check_tenants(names: Iterable[str], before: Collection[str], known: Collection[str]) -> None:
    """Raises InvalidRequest for a tenant that there is not; one that was named before may have gone since."""
    for name in names:
        if name != EVERYBODY and name not in before and name not in known:
            raise errors.InvalidRequest(f"There is no tenant {name!r} to share it with.", param="sharedWith")
