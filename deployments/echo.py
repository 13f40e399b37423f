"""The engine without a model: how its server is started. The server itself is `deployments.echo_server`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cluster import images, lora, spec
from deployments.engine import Launch, Site
from deployments.start_phases import Milestone

SERVER = (sys.executable, "-m", "deployments.echo_server")


class Echo:
    """See cluster.images.EchoImage for the settings."""

    milestones: Sequence[Milestone] = ()
    hang_after_s = 60.0

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:  # noqa: ARG002
        """Nothing to import."""
        return Launch(SERVER)

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """The echo server with its settings as JSON."""
        settings = images.Image.model_validate(replica.model.get("image", {"echo": {}})).echo or images.EchoImage()
        address = ("--host", site.host, "--port", str(site.port))
        command = (*SERVER, *address, "--model", replica.endpoint)
        told = json.dumps({**settings.model_dump(mode="json"), "lora": lora.enabled(replica.typed_model)})
        return Launch((*command, "--settings", told))
