"""What a node can tell of a model without bringing it: the facts by which a plan is made before anything starts.

Runs as a Ray task, so that paths, credentials and the network are those of a replica; the manager itself fetches nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cluster.model_facts import Facts
from deployments import sources
from deployments.node import Node


def survey(model: dict[str, Any], secrets: Mapping[str, str]) -> Facts:
    """`model` is `Model.wire()`. Never raises for a source that cannot be read: the facts then have the problem and nothing else."""
    node = Node.from_environment(os.environ)
    environment = node.source_environment({**model.get("env", {}), **secrets})
    repository, revision = str(model.get("repository") or ""), model.get("revision") or None
    try:
        return sources.look(model, cache=node.models, allowed=node.model_paths, environment=environment, hub_endpoint=node.hub_endpoint)
    except sources.SourceError as error:
        return Facts(repository, revision, problem=error.reason, message=str(error).replace(str(node.home), "~"))
