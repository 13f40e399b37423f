"""From what a replica said of its memory to a row that the next plan of the same model is made with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster import deployment_config, errors, fit, records
from cluster import spec as specs

NAMES = frozenset({"weightsBytes", "cacheTokens", "maxModelLen", "concurrency"})


def measurement(revision: records.Revision, said: Mapping[str, Any], at: float) -> records.Measurement | None:
    """The row, None where the revision has no model or nothing was said that is understood."""
    model, compute = {**revision.fields["model"], **revision.fields.get("source", {})}, revision.fields.get("compute", {})
    data = {name: float(value) for name, value in said.items() if name in NAMES and isinstance(value, int | float) and value > 0}
    if not data or not model.get("repository"):
        return None
    try:
        typed = specs.Model.model_validate({**model, "secrets": {}}, extra="ignore")
        typed = typed.model_copy(update={"args": deployment_config.merged(revision.fields.get("advice", ()), typed)})
        settings = fit.Settings.of(typed).signature
    except errors.MoorageError:  # flags of another version
        return None
    return records.Measurement(
        typed.repository,
        typed.revision or "",
        compute.get("instanceType", ""),
        compute.get("instanceSize", ""),
        settings,
        data,
        at,
    )
