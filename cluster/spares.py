"""Which nodes need a spare worker: a process that has imported what a replica needs, before there is a replica.

Starting a process and importing Ray and Ray Serve into it takes longer than all the rest of a replica's start. With one spare a
node, a request wakes an endpoint sooner, and a replica, a gateway or a manager that died is replaced sooner.
"""

from __future__ import annotations

from cluster import observation

KEPT_S = 3600.0
"""How long a node keeps a spare that nothing uses; then it gets another one."""
REST_S = 20.0
"""From the start of a replica, which may have used the spare up, to the next one: the start comes first."""


class Spares:
    """Not thread-safe. Times are in seconds, of whatever clock."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        """Node -> when it is to get the next spare."""
        self._replicas: dict[str, set[str]] = {}

    def due(self, observed: observation.Cluster, now: float) -> list[str]:
        """Nodes that are to get a spare now."""
        replicas: dict[str, set[str]] = {node.id: set() for node in observed.nodes}
        for application in observed.applications.values():
            for replica in application.replicas:
                if replica.node in replicas:
                    replicas[replica.node].add(replica.id)
        for node in self._due.keys() - replicas.keys():
            del self._due[node]
        for node, present in replicas.items():
            if node in self._due and present - self._replicas.get(node, set()):
                self._due[node] = now + REST_S
        self._replicas = replicas
        found = [node for node in replicas if now >= self._due.get(node, now)]
        self._due.update(dict.fromkeys(found, now + KEPT_S))
        return found
