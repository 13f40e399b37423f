"""The engine for images from text: how its server (`deployments.text_to_image_server`) is started. Imports no diffusers."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence

from cluster import engine_environment, errors, images, spec
from deployments import start_phases
from deployments.engine import Launch, Site

SERVER = (sys.executable, "-m", "deployments.text_to_image_server")


class TextToImage:
    """See cluster.images.DiffusersImage for the settings."""

    milestones: Sequence[start_phases.Milestone] = (
        (re.compile(r"^moorage: loading the pipeline"), start_phases.LOADING),
        (re.compile(r"^moorage: loaded "), start_phases.WARMING),
    )
    hang_after_s = 300.0
    """Longer than any step of a pipeline, the decoding of a batch included."""

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:  # noqa: ARG002
        """The server with its environment."""
        found = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        if replica.placement.gpus == 0:
            found["OMP_NUM_THREADS"] = str(max(1, int(replica.placement.cpus)))
        return Launch(SERVER, found)

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """The settings as JSON."""
        model = replica.typed_model
        engine_environment.check(model.env)
        if model.args:
            raise errors.InvalidRequest("this engine has no flags: its settings are fields of model.image.diffusers", param="model.args")
        if importlib.util.find_spec("diffusers") is None:
            raise errors.InvalidRequest("images need the package diffusers on every node: pip install diffusers", param="model.image")
        if site.model is None:
            raise errors.InvalidRequest("this engine needs a model", param="model.repository")
        settings = model.image.diffusers or images.DiffusersImage()
        words = ["--host", site.host, "--port", str(site.port), "--name", replica.endpoint, "--model", str(site.model)]
        words += ["--settings", settings.model_dump_json()]
        if model.settings.llm.allow_pickle:
            words += ["--allow-pickle"]
        base = self.prepare(replica, site)
        return Launch((*base.command, *words), base.environment)
