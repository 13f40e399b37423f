"""What an endpoint's adapters are and what became of them: pure views of its row and of what its replicas said."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from cluster import credentials, messages, records

RETIRED = "retiredAdapters"
"""In an endpoint's stored spec beside what its user wrote: names of adapters that were removed."""
RETIRED_KEPT = 256
UNTOLD = "It is loaded when a replica runs."
SWITCHED_ON = (
    "The engine runs without LoRA: a new revision starts with the usual update, and the adapters answer once it serves."
    " Later changes of adapters start nothing."
)


@dataclasses.dataclass(frozen=True)
class Status:
    """One adapter of an endpoint: `ready` when every ready replica of the serving revision has it."""

    adapter: messages.Adapter
    state: Literal["pending", "ready", "failed"]
    reason: str = ""
    message: str = ""
    ready: int = 0
    """Replicas that have it."""


def wanted(row: records.Endpoint) -> messages.Adapters:
    """What the replicas of `row` are to have. Read from the row as it is stored: parsing thousands of rows would cost too much."""
    listed: Sequence[Mapping[str, Any]] = row.spec.get("model", {}).get("adapters") or ()
    found = tuple(
        messages.Adapter(one["name"], one["repository"], one.get("revision") or "", credentials.names(one.get("integration")))
        for one in listed
    )
    return messages.Adapters(found, tuple(row.spec.get(RETIRED, ())))


def with_retired(stored: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The spec to store, with the names that were adapters `before` and are none any more."""
    present, past = _names(stored), _names(before)
    retired = [*before.get(RETIRED, ()), *past]
    kept = list(dict.fromkeys(name for name in retired if name not in present))[-RETIRED_KEPT:]
    return {**stored, RETIRED: kept} if kept else dict(stored)


def statuses(row: records.Endpoint, told: Mapping[str, Sequence[messages.AdapterState]], ready: Collection[str]) -> tuple[Status, ...]:
    """Each wanted adapter, from what the ready replicas of the serving revision said."""
    found = []
    for adapter in wanted(row).wanted:
        said = [next((state for state in told.get(replica, ()) if state.adapter == adapter), None) for replica in sorted(ready)]
        count = sum(state is not None and state.state == "ready" for state in said)
        failed = next((state for state in said if state is not None and state.state == "failed"), None)
        waiting = next((state for state in said if state is not None and state.state == "pending"), None)
        if failed is not None:
            found.append(Status(adapter, "failed", failed.reason, failed.message, count))
        elif said and count == len(said):
            message = next((state.message for state in said if state is not None), "")
            found.append(Status(adapter, "ready", message=message, ready=count))
        else:
            found.append(Status(adapter, "pending", message=waiting.message if waiting else UNTOLD, ready=count))
    return tuple(found)


def _names(stored: Mapping[str, Any]) -> list[str]:
    return [one["name"] for one in stored.get("model", {}).get("adapters") or ()]
