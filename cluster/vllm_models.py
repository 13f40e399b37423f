"""vLLM's model registry without vLLM: which architectures it can load, and what for. See deployments/vllm_models.py for the table."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

GENERIC = ("ForCausalLM", "ForConditionalGeneration", "ForSequenceClassification", "ForTokenClassification", "Model", "LMHeadModel")
"""Ends of names that vLLM tries to run by the Transformers library, or to turn into another kind of model."""


@functools.cache
def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(resources.files("cluster").joinpath("data/vllm_models.json").read_text())
    return found


def version() -> str:
    """Of the vLLM that the table was written from."""
    return str(_table()["vllm"])


def kinds(architecture: str) -> frozenset[str]:
    """What vLLM can run the architecture for; empty when it does not list it.

    generate, embed, reward, classify, token-classify; multimodal: it takes more than text; draft: only beside another model;
    transformers: by the Transformers library.
    """
    return frozenset(_table()["architectures"].get(architecture, ()))


def removed(architecture: str) -> str:
    """The last version of vLLM that could load it; '' for those that it can load, or never could."""
    return "" if kinds(architecture) else str(_table()["removed"].get(architecture, ""))


def refusal(architecture: str) -> str:
    """Why this architecture cannot be served by itself, '' when it can or might."""
    if last := removed(architecture):
        return f"vLLM {version()} cannot load the architecture {architecture} any more: {last} was the last version that could."
    if kinds(architecture) == {"draft"}:
        return f"The architecture {architecture} is a draft model for speculative decoding: serve the model that it belongs to."
    return ""


def warning(architecture: str) -> str:
    """What to know of an architecture that vLLM does not list, '' when it does."""
    if not architecture or kinds(architecture):
        return ""
    if architecture.endswith(GENERIC):
        return (
            f"vLLM {version()} does not list the architecture {architecture}: it tries to run it by the Transformers library, "
            "slower than its own models, and fails where that cannot."
        )
    return f"vLLM {version()} does not list the architecture {architecture}: it will probably not load."
