"""The engine kinds by name."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import errors
from deployments.echo import Echo
from deployments.engine import Engine
from deployments.llm import Llm

ENGINES: Mapping[str, Engine] = {"echo": Echo(), "llm": Llm()}
OF_VARIANT: Mapping[str, str] = {"echo": "echo", "vLLM": "llm", "huggingface": "llm", "tgi": "llm"}
"""Variant of cluster.spec.Image -> engine kind."""


def named(kind: str) -> Engine:
    """The engine of that kind. Raises InvalidRequest."""
    engine = ENGINES.get(kind)
    if engine is None:
        raise errors.InvalidRequest(f"there is no engine {kind!r}: choose one of {', '.join(ENGINES)}", param="model.image")
    return engine


def of_variant(variant: str) -> str:
    """The engine kind that serves an image variant. Raises InvalidRequest."""
    kind = OF_VARIANT.get(variant)
    if kind is None:
        raise errors.InvalidRequest(f"there is no engine for {variant!r}: choose one of {', '.join(OF_VARIANT)}", param="model.image")
    return kind
