"""What a replica takes and costs: the accelerators of its revision, at the price of the hardware table. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cluster import hardware, instance_types

HOUR_S = 3600.0


@dataclasses.dataclass(frozen=True)
class Rate:
    """Of one replica. `accelerators` are GPUs, or CPUs of an instance without GPUs; a price of 0 = the operator said none."""

    instance_type: str = ""
    instance_size: str = ""
    accelerators: float = 0.0
    per_hour: float = 0.0

    def cost(self, seconds: float) -> float:
        """Of so many seconds of the replica."""
        return self.per_hour / HOUR_S * seconds


UNKNOWN = Rate()
"""Of a revision that nothing is known of any more."""


def of_instance(instance_type: str, instance_size: str, catalogue: instance_types.Catalogue) -> Rate:
    """A whole instance. The price holds whether or not a node of the kind is there just now."""
    count = int(instance_size.removeprefix("x") or 1) if instance_size.removeprefix("x").isdecimal() else 1
    known = catalogue.types.get(instance_type)
    return Rate(instance_type, instance_size, float(count), known.price(count) if known else 0.0)


def of_revision(fields: Mapping[str, Any], member: str, catalogue: instance_types.Catalogue) -> Rate:
    """A replica of a stored revision: its instance, or a member's part of it."""
    compute = fields.get("compute") or {}
    whole = of_instance(compute.get("instanceType", hardware.CPU_TYPE), compute.get("instanceSize", "x1"), catalogue)
    claim = (fields.get("placements") or {}).get(member)
    if not member or claim is None:
        return whole
    part = float(claim.get("gpus") or claim.get("cpus") or whole.accelerators)
    return dataclasses.replace(whole, accelerators=part, per_hour=whole.per_hour * part / whole.accelerators)
