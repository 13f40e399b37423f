"""What is known of a model before anything of it is downloaded: its configuration, its files' sizes, and where it comes from.

Found out on a node by `deployments.survey`; what follows from it is `cluster.model_shape`'s, `cluster.model_tasks`' and `cluster.fit`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Facts:
    """One repository at one version. Empty values mean: not known, and `problem` tells why where something went wrong."""

    repository: str
    revision: str | None = None
    """As it was asked for."""
    version: str = ""
    """The commit on the Hub, a digest of the listing in an object store."""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """config.json."""
    weight_bytes: int = 0
    """Of the files that would be brought."""
    weight_files: int = 0
    tensors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Numbers in all tensors by their type as safetensors calls it (BF16, F8_E4M3, ...); empty where reading it was too much."""
    task: str = ""
    """The repository's own word for what it is for (the Hub's pipeline tag)."""
    sentence_transformer: bool = False
    """It has a pooling module of sentence-transformers."""
    pipeline: bool = False
    """It is a diffusers pipeline."""
    deployment_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """config/deployment_config.json."""
    problem: str = ""
    """Reason why it could not be read or would be refused (GatedRepository, PickleRefused, SourceUnreachable, ...)."""
    message: str = ""
    """The problem in a sentence."""

    @property
    def known(self) -> bool:
        """Whether the configuration could be read."""
        return bool(self.config) or self.pipeline
