"""The engine that is a command of the user's: any HTTP server, behind our guard (`deployments.command_server`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cluster import errors, images, spec
from deployments.engine import Launch, Site
from deployments.start_phases import Milestone

SERVER = (sys.executable, "-m", "deployments.command_server")


class Command:
    """See cluster.images.CommandImage for the settings."""

    milestones: Sequence[Milestone] = ()
    hang_after_s = 600.0
    """Without a byte of an answer and without health: what a server of the user's does meanwhile is not known."""

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:  # noqa: ARG002
        """Nothing to import."""
        return Launch(SERVER, runs_program=True)

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """The guard, and behind its options the user's words."""
        model = replica.typed_model
        image = model.image.command or images.CommandImage()
        if not model.command:
            raise errors.InvalidRequest("model.command is missing: name the program and its words", param="model.command")
        words = ["--host", site.host, "--port", str(site.port), "--health-route", image.health_route]
        words += ["--max-concurrency", str(image.max_concurrency)]
        if site.model is not None:
            words += ["--model", str(site.model)]
        return Launch((*SERVER, *words, "--", *model.command, *model.args), runs_program=True)
