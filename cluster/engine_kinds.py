"""Which engine kind serves an endpoint's image and task, and what follows from the kind. Imported by both sides; imports none."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import errors, spec

OF_VARIANT: Mapping[str, str] = {
    "huggingface": "llm",
    "vLLM": "llm",
    "tgi": "llm",
    "diffusers": "text_to_image",
    "custom": "container",
    "command": "command",
    "echo": "echo",
}
"""Variant of images.Image -> engine kind, where the task does not say otherwise."""
IMAGE_TASKS = frozenset({"text-to-image", "image-to-image", "text-to-video", "image-to-video", "inpainting"})
TEXT_TO_IMAGE = "text-to-image"
PROGRAMS = frozenset({"command", "container"})
"""Kinds that run a program of the user's: its routes are its own, and so is its environment."""
PROGRAM_VARIANTS = frozenset(variant for variant, kind in OF_VARIANT.items() if kind in PROGRAMS)
WITHOUT_MODEL = frozenset({"echo"})


def of(model: spec.Model) -> str:
    """The kind. Raises InvalidRequest for what is not offered."""
    variant = model.image.variant
    kind = "text_to_image" if variant == "huggingface" and model.task == TEXT_TO_IMAGE else OF_VARIANT[variant]
    if (kind == "text_to_image" and model.task not in (None, TEXT_TO_IMAGE)) or (kind == "llm" and model.task in IMAGE_TASKS):
        raise errors.InvalidRequest(
            f"The task {model.task!r} is not offered with this engine: for images it is {TEXT_TO_IMAGE}.", param="model.task"
        )
    return kind


def task(model: spec.Model) -> str | None:
    """The task, where it is named or the engine has but one."""
    return TEXT_TO_IMAGE if model.task is None and model.image.diffusers is not None else model.task


def needs_model(kind: str, model: spec.Model) -> bool:
    """Whether the model's files are brought to the node before the start; programs may do without one."""
    return kind not in WITHOUT_MODEL and not (kind in PROGRAMS and not model.repository)
