"""Adding and removing one adapter of an endpoint: changes of its list, made again when another change came between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cluster import adapters, control, errors, records
from cluster import spec as specs
from cluster.actor import Actor


@dataclasses.dataclass(frozen=True)
class Added:
    """The endpoint's adapter, and what its user should know."""

    status: adapters.Status
    warnings: tuple[str, ...]


class AdapterControl:
    """Commands on the adapters of endpoints. Each raises NotFound for an endpoint or adapter that there is not."""

    def __init__(self, commands: control.Control) -> None:
        self._commands = commands

    def list(self, actor: Actor, namespace: str, name: str) -> tuple[adapters.Status, ...]:
        """All of an endpoint's, in the order of its list."""
        return self._commands.status(self._commands.get(actor, namespace, name)).adapters

    def get(self, actor: Actor, namespace: str, name: str, adapter: str) -> adapters.Status:
        """One of them."""
        return _find(self.list(actor, namespace, name), adapter, name)

    def add(self, actor: Actor, namespace: str, name: str, new: specs.Adapter) -> Added:
        """Replicas load it while they serve. Raises InvalidRequest, and AlreadyExists when its name is another adapter's."""
        before = self._commands.get(actor, namespace, name)

        def added(present: dict[str, dict[str, Any]]) -> None:
            if present.setdefault(new.name, new.wire()) != new.wire():
                raise errors.AlreadyExists(f"{name} has another adapter called {new.name!r}: remove it first, or choose another name.")

        row = self._change(actor, namespace, name, added)
        found = _find(self._commands.status(row).adapters, new.name, name)
        return Added(found, control.switched_on(before.parsed, row.parsed))

    def remove(self, actor: Actor, namespace: str, name: str, adapter: str) -> None:
        """New requests for it are refused; those that it has begun to answer go on."""

        def removed(present: dict[str, dict[str, Any]]) -> None:
            if present.pop(adapter, None) is None:
                raise _missing(adapter, name)

        self._change(actor, namespace, name, removed)

    def _change(self, actor: Actor, namespace: str, name: str, change: Callable[[dict[str, dict[str, Any]]], None]) -> records.Endpoint:
        for _ in range(control.UPDATE_ATTEMPTS):
            row = self._commands.get(actor, namespace, name)
            present = {adapter.name: adapter.wire() for adapter in row.parsed.model.adapters}
            change(present)
            wire: Mapping[str, Any] = {"model": {"adapters": list(present.values())}}
            try:
                return self._commands.update(actor, namespace, name, wire, expected=row.generation)
            except errors.StaleGeneration:
                continue
        raise errors.StaleGeneration


def _find(found: tuple[adapters.Status, ...], adapter: str, name: str) -> adapters.Status:
    status = next((one for one in found if one.adapter.name == adapter), None)
    if status is None:
        raise _missing(adapter, name)
    return status


def _missing(adapter: str, name: str) -> errors.NotFound:
    return errors.NotFound(f"{name} has no adapter {adapter[:64]!r}.")
