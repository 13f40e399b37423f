"""Which engine kind serves an endpoint's image and task, and what follows from the kind. Imported by both sides; imports none."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import errors, spec

OF_VARIANT: Mapping[str, str] = {
    "huggingface": "llm",
    "vLLM": "llm",
    "tgi": "llm",
    "custom": "container",
    "command": "command",
    "echo": "echo",
}
"""Variant of spec.Image -> engine kind, where the task does not say otherwise."""
IMAGE_TASKS = frozenset({"text-to-image", "image-to-image", "text-to-video", "image-to-video", "inpainting"})
PROGRAMS = frozenset({"command", "container"})
"""Kinds that run a program of the user's: its routes are its own, and so is its environment."""
PROGRAM_VARIANTS = frozenset(variant for variant, kind in OF_VARIANT.items() if kind in PROGRAMS)
WITHOUT_MODEL = frozenset({"echo"})


def of(model: spec.Model) -> str:
    """The kind. Raises InvalidRequest for what is not offered."""
    variant = model.image.variant
    if variant not in OF_VARIANT:
        raise errors.InvalidRequest(f"The engine {variant!r} is not offered: choose one of {', '.join(OF_VARIANT)}.", param="model.image")
    if variant == "huggingface" and model.task in IMAGE_TASKS:
        raise errors.InvalidRequest(
            f"The task {model.task!r} is not offered: models that make text, embeddings or scores are.", param="model.task"
        )
    return OF_VARIANT[variant]


def needs_model(kind: str, model: spec.Model) -> bool:
    """Whether the model's files are brought to the node before the start; programs may do without one."""
    return kind not in WITHOUT_MODEL and not (kind in PROGRAMS and not model.repository)
