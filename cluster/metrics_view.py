"""Joins what is known of an endpoint's service for those who look: its numbers, its replicas and its state."""

from __future__ import annotations

from collections.abc import Callable

from cluster import control, open_metrics, records, replica_timeline, service_metrics
from cluster.actor import Actor


class MetricsView:
    """Reads only."""

    def __init__(
        self,
        commands: control.Control,
        counted: service_metrics.ServiceMetrics,
        replicas: Callable[[str], replica_timeline.Replicas] = lambda path: replica_timeline.Replicas(),  # noqa: ARG005
    ) -> None:
        """`replicas` answers by `namespace/name`."""
        self.counted = counted
        self._commands = commands
        self._replicas = replicas

    def reading(self, row: records.Endpoint) -> open_metrics.Reading:
        """One endpoint at this moment."""
        return open_metrics.Reading(
            path=row.path,
            state=self._commands.status(row).state,
            maximum=row.parsed.compute.scaling.max_replica,
            totals=self.counted.totals(row.path),
            replicas=self._replicas(row.path),
        )

    def all(self, actor: Actor) -> list[open_metrics.Reading]:
        """Every endpoint of the namespaces that the actor may enter: of an operator, all there are."""
        return [self.reading(row) for row in self._commands.store.endpoints() if row.namespace in actor.namespaces]
