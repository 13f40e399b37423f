"""Which engine serves a model, with that engine's own fields: `model.image` of a spec."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from cluster.resource import Resource

ROUTE_PATTERN = r"^/[A-Za-z0-9/_.~-]{0,200}$"
IMAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]+)?(/[A-Za-z0-9._-]+)*(:[A-Za-z0-9_.-]{1,128})?(@sha256:[0-9a-f]{64})?$"
"""`registry:port/path/name:tag@digest`, most of it optional."""
ENGINE_VARIANTS = ("huggingface", "vLLM", "tgi", "custom", "diffusers", "echo", "command")


class VllmImage(Resource):
    """The vLLM engine. Parallel sizes left out are made to use the whole instance."""

    tensor_parallel_size: int | None = Field(None, ge=1)
    data_parallel_size: int | None = Field(None, ge=1)
    pipeline_parallel_size: int | None = Field(None, ge=1)
    health_route: str | None = None
    url: str | None = None
    port: int | None = None


class EchoImage(Resource):
    """The engine without a model: deterministic tokens, scripted delays and failures. For tests, demos and latency floors."""

    tokens_per_second: float = Field(0, ge=0)
    """Pace of generated tokens; 0 = as fast as possible."""
    load_seconds: float = Field(0, ge=0)
    """Time the server pretends to load before it is ready."""
    max_concurrency: int = Field(64, ge=1)
    wake_seconds: float = Field(0, ge=0)
    """Time the engine pretends to wake up when it has gone to sleep."""
    failure: Literal["none", "load", "crash", "smoke", "hang"] = "none"
    """`load`: exits while loading; `crash`: exits at the first request that is not the smoke request; `smoke`: the smoke
    request fails; `hang`: never becomes ready."""
    tag: str = ""
    """Returned as `system_fingerprint`, so that a test sees which revision answered."""


class CommandImage(Resource):
    """A server of the user's own, started by `model.command` and `model.args`. It listens on 127.0.0.1 at the port in PORT."""

    health_route: str = Field("/health", pattern=ROUTE_PATTERN)
    """Answers 200 as soon as the server can serve."""
    max_concurrency: int = Field(64, ge=1, le=100_000)
    """Requests that one replica may be working on at once; more wait at the edge."""


class CustomImage(Resource):
    """A container image of the user's own, run by podman or docker on the node."""

    url: str = Field(pattern=IMAGE_PATTERN, max_length=500)
    """The image, as `docker pull` names it: `ghcr.io/org/image:tag`."""
    port: int = Field(80, ge=1, le=65535)
    """Where its server listens in the container; it finds the number in PORT too."""
    health_route: str = Field("/health", pattern=ROUTE_PATTERN)
    max_concurrency: int = Field(64, ge=1, le=100_000)
    command: tuple[str, ...] = ()
    """Replaces the image's entrypoint; `model.command` where this is empty."""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _older_spelling(cls, value: Any) -> Any:
        """Hugging Face's older examples say `health_route`."""
        if isinstance(value, dict) and "health_route" in value and "healthRoute" not in value:
            return {("healthRoute" if name == "health_route" else name): field for name, field in value.items()}
        return value


class DiffusersImage(Resource):
    """A diffusers pipeline that makes images from text."""

    max_batch: int = Field(4, ge=1, le=64)
    """Images that are made together, where requests of the same size and steps wait."""
    max_concurrency: int = Field(16, ge=1, le=1000)
    """Requests that one replica takes at once: those of the batch, and those that wait for the next."""
    max_side: int = Field(2048, ge=64, le=8192)
    """Longest side of an image, in pixels."""
    max_steps: int = Field(150, ge=1, le=1000)
    max_images: int = Field(8, ge=1, le=64)
    """Images of one request."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the weights; `auto`: float16 on a GPU, float32 on a CPU."""


class OpenImage(Resource):
    """An image variant whose fields a later version reads."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)


class Image(Resource):
    """Which engine serves the model: exactly one variant, named as on Hugging Face plus Moorage's own."""

    huggingface: OpenImage | None = None
    vllm: VllmImage | None = Field(None, alias="vLLM")
    tgi: OpenImage | None = None
    custom: CustomImage | None = None
    diffusers: DiffusersImage | None = None
    echo: EchoImage | None = None
    command: CommandImage | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_known_variant(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = [name for name, fields in value.items() if fields is not None]
        if len(names) != 1 or names[0] not in {*ENGINE_VARIANTS, "vllm"}:
            raise ValueError(f"name exactly one engine of {', '.join(ENGINE_VARIANTS)}, not {', '.join(map(str, names)) or 'none'}")
        return value

    @property
    def variant(self) -> str:
        """The name of the variant given, as on the wire."""
        return next(iter(self.wire()))
