"""Partial changes of a spec's JSON: merged as PUT promises, compared, and named by their dotted paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster import members

WHOLE = frozenset(
    {
        "model.image",
        "model.args",
        "model.command",
        "model.env",
        "model.secrets",
        "model.secretRefs",
        "tags",
        "sharedWith",
        "networks",
        "requestLog.redact",
        "compute.scaling.measure",
        "experimentalFeatures",
    }
)
"""Replaced as a whole, never merged key by key: half an engine or half an environment is nobody's intention."""


def merge(old: Mapping[str, Any], change: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """`old` with `change` laid over it; a null takes a field back to its default."""
    merged = dict(old)
    for name, value in change.items():
        here = f"{path}{name}"
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and here not in WHOLE:
            merged[name] = merge(merged[name], value, f"{here}.")
        else:
            merged[name] = value
    return merged


def paths(change: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of the leaves of a change."""
    for name, value in change.items():
        here = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and here not in WHOLE:
            yield from paths(value, f"{here}.")
        else:
            yield here


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths at which two specs differ, sorted."""
    found = []
    for name in sorted({*old, *new}):
        here, before, after = f"{prefix}{name}", old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping) and here not in WHOLE:
            found += differences(before, after, f"{here}.")
        elif before != after:
            found.append(here)
    return found


def with_revision(spec: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """`spec` with the model and hardware of a revision; secrets, adapters and scaling, which are no part of one, stay as they are."""
    model = {name: value for name, value in members.with_scaling(fields["model"], spec["model"]).items() if name != "secrets"}
    kept = {"secrets": spec["model"].get("secrets", {}), "adapters": spec["model"].get("adapters", [])}
    return {**spec, "model": {**model, **kept}, "compute": {**spec["compute"], **fields.get("compute", {})}}
