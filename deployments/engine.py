"""What an engine kind has to say for itself: the command and environment of its server process. Imports no engine.

The server then tells the rest (tasks, concurrency) through the guard's stats route.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster import spec
from deployments.start_phases import Milestone

PROGRAM_PREFIX = "MOORAGE_PROGRAM_"


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a server is to run: its address, the local copy of its model, and folders of its own."""

    host: str
    port: int
    model: Path | None
    """None for engines that need no model."""
    folder: Path
    """Private to this replica, removed when it ends."""
    cache: Path
    """Persistent, shared by the replicas of this node."""
    media_hosts: tuple[str, ...] = ()
    """Hosts that the operator lets media be fetched from."""
    ray: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Environment with which an engine that spans nodes finds the replica's claim (see deployments.ray_executor)."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """A command line (no secrets: everyone on the machine can read it) and what it needs in its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    forked_by: str = ""
    """Module with which the node's launcher can fork it (see deployments.launcher_process); the command is then
    `python -m MODULE ...`. Empty if it cannot."""
    runs_program: bool = False
    """It runs a program of the user's: the endpoint's variables are for that alone, and come with PROGRAM_PREFIX before their names."""


class Engine(Protocol):
    """One kind of engine."""

    milestones: Sequence[Milestone]
    """What its server writes when a phase of its start begins."""
    hang_after_s: float
    """With requests running, so long without a step means that the engine hangs."""

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """What of `launch` is known before the model is there: enough for the node's launcher to import the engine meanwhile."""
        ...

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """How to start the server of `replica` at `site`. Raises cluster.errors.InvalidRequest on settings that cannot be."""
        ...
