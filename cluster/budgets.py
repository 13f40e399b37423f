"""Budgets count money: where nothing has a price they block nobody, and whoever sets one is told so. Pure."""

from __future__ import annotations

from cluster import instance_types, prices, records
from cluster import spec as specs
from cluster.limits import Limits

MEND = f"set pricePerHour in the operator's file of instance types ({instance_types.FILE}), or limit tokens instead (tokensPerDay)"


def of_endpoint(limits: Limits | records.Key, compute: specs.Compute, catalogue: instance_types.Catalogue) -> tuple[str, ...]:
    """What is to be said of a budget of an endpoint, or of a key of it."""
    if not limits.budget or prices.of_instance(compute.instance_type, compute.instance_size, catalogue).per_hour:
        return ()
    return (
        f"This budget never blocks: {compute.instance_type} {compute.instance_size} has no price, so its use costs 0. To mend it, {MEND}.",
    )


def of_platform_key(key: records.Key, catalogue: instance_types.Catalogue) -> tuple[str, ...]:
    """What is to be said of a budget of a platform key, which may call endpoints on whatever there is."""
    if not key.budget or catalogue.priced:
        return ()
    return (f"This budget never blocks: no instance type has a price, so all use costs 0. To mend it, {MEND}.",)
