"""The one module that imports diffusers: a pipeline from a local folder, as an image_batches.Painter."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from deployments import engine_stats
from deployments.image_batches import Picture, TooLarge
from deployments.image_requests import Invalid, Shape

VARIANTS = ("fp16", "bf16", "fp32", "ema", "non_ema")


class DiffusersPainter:
    """One pipeline on one device."""

    def __init__(self, folder: Path, dtype: str, *, allow_pickle: bool, stats: engine_stats.EngineStats = engine_stats.CURRENT) -> None:
        """Loads it. `dtype` as in cluster.images.DiffusersImage. Raises what diffusers raises for a folder that is no pipeline."""
        self._stats = stats
        device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = ("float16" if device == "cuda" else "float32") if dtype == "auto" else dtype
        self._pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
            str(folder),
            dtype=getattr(torch, chosen),
            variant=variant_of(folder),
            use_safetensors=None if allow_pickle else True,
            local_files_only=True,
        ).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        self._takes = frozenset(inspect.signature(self._pipeline.__call__).parameters)
        self._scheduler = getattr(self._pipeline, "scheduler", None)
        self.name = f"{type(self._pipeline).__name__} as {chosen} on {device}"

    @property
    def schedulers(self) -> Mapping[str, Any]:
        """Those that can take the place of the model's own, by name."""
        return {kind.__name__: kind for kind in getattr(self._scheduler, "compatibles", ())}

    def check(self, shape: Shape, negative: str | None) -> None:
        """Whether this pipeline knows what is asked. Raises Invalid."""
        if shape.scheduler is not None and shape.scheduler not in self.schedulers:
            known = ", ".join(sorted(self.schedulers)) or "none"
            raise Invalid(f"`scheduler` must be one of those that this model can have: {known}", "scheduler")
        wanted = {"negative_prompt": negative, "guidance_scale": shape.guidance, "height": shape.height, "width": shape.width}
        for name, value in {**wanted, "num_inference_steps": shape.steps}.items():
            if value is not None and name not in self._takes:
                raise Invalid(f"this model has no `{name}`", name)

    def paint(self, shape: Shape, pictures: Sequence[Picture], abandoned: Callable[[], bool]) -> Sequence[Any]:
        """PIL images. Each has a generator of its own on the CPU, so that its seed means the same on every device and in every batch."""
        self._use(shape.scheduler)
        generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
        options: dict[str, Any] = {
            "height": shape.height,
            "width": shape.width,
            "num_inference_steps": shape.steps,
            "guidance_scale": shape.guidance,
        }
        if any(picture.negative for picture in pictures):
            options["negative_prompt"] = [picture.negative or "" for picture in pictures]
        if "callback_on_step_end" in self._takes:
            options["callback_on_step_end"] = self._watch(abandoned)
        given = {name: value for name, value in options.items() if value is not None}
        self._stats.stepped_at = time.monotonic()
        try:
            with torch.inference_mode():
                made = self._pipeline(prompt=[picture.prompt for picture in pictures], generator=generators, **given)
        except torch.OutOfMemoryError as exc:
            torch.cuda.empty_cache()
            raise TooLarge from exc
        images: Sequence[Any] = made.images
        return images

    def _watch(self, abandoned: Callable[[], bool]) -> Callable[..., dict[str, Any]]:
        def watch(pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self._stats.stepped_at = time.monotonic()
            if abandoned():
                pipeline._interrupt = True
            return tensors

        return watch

    def _use(self, name: str | None) -> None:
        """The scheduler of that name, made from the model's own; that one itself for None."""
        if self._scheduler is not None:
            config = self._scheduler.config
            self._pipeline.scheduler = self._scheduler if name is None else self.schedulers[name].from_config(config)


def variant_of(folder: Path) -> str | None:
    """`fp16` where the weights of a pipeline's parts lie there in that precision alone, and so on; None where they have no variant."""
    parts = [name for name, kind in json.loads((folder / "model_index.json").read_text()).items() if isinstance(kind, list) and any(kind)]
    files = [file.name for part in parts for file in (folder / part).glob("*.safetensors")]
    for variant in VARIANTS:
        if any(f".{variant}." in name for name in files):
            plain = [name for name in files if not any(f".{other}." in name for other in VARIANTS)]
            return None if plain else variant
    return None
