"""The engine that is a container of the user's: any image with an HTTP server, behind our guard (`deployments.container_server`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from cluster import errors, spec
from deployments import start_phases
from deployments.engine import PROGRAM_PREFIX, Launch, Site

SERVER = (sys.executable, "-m", "deployments.container_server")


class Container:
    """See cluster.images.CustomImage for the settings."""

    milestones: Sequence[start_phases.Milestone] = (
        (re.compile(r"^moorage: pulling "), "downloading"),
        (re.compile(r"^moorage: starting the container"), start_phases.LOADING),
    )
    hang_after_s = 600.0
    """As for commands."""

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:  # noqa: ARG002
        """Nothing to import."""
        return Launch(SERVER, runs_program=True)

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """The guard's options, and behind them the words that replace the image's own."""
        model = replica.typed_model
        image = model.image.custom
        if image is None:
            raise errors.InvalidRequest("model.image.custom is missing: name the image", param="model.image.custom")
        words = ["--host", site.host, "--port", str(site.port), "--health-route", image.health_route]
        words += ["--max-concurrency", str(image.max_concurrency), "--image", image.url, "--container-port", str(image.port)]
        if site.model is not None:
            words += ["--model", str(site.model)]
        if replica.placement.gpus:
            words += ["--gpus"]
        entrypoint, *first = image.command or model.command or ("",)
        words += [f"--entrypoint={entrypoint}", "--", *first, *(image.args or model.args)]
        environment = {f"{PROGRAM_PREFIX}{name}": value for name, value in image.env.items() if name not in model.env}
        return Launch((*SERVER, *words), environment, runs_program=True)
