"""The engine kinds by name."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import errors
from deployments.command import Command
from deployments.container import Container
from deployments.echo import Echo
from deployments.engine import Engine
from deployments.llm import Llm
from deployments.text_to_image import TextToImage

ENGINES: Mapping[str, Engine] = {
    "echo": Echo(),
    "llm": Llm(),
    "command": Command(),
    "container": Container(),
    "text_to_image": TextToImage(),
}
"""As cluster.engine_kinds names them."""


def named(kind: str) -> Engine:
    """The engine of that kind. Raises InvalidRequest."""
    engine = ENGINES.get(kind)
    if engine is None:
        raise errors.InvalidRequest(f"there is no engine {kind!r}: choose one of {', '.join(ENGINES)}", param="model.image")
    return engine
