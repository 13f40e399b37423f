"""Typed settings of engines, under the engine's own names: `model.settings` of a spec."""

from __future__ import annotations

from pydantic import Field

from cluster.resource import Resource


class LlmSettings(Resource):
    """vLLM's model settings, under the engine's own names; each is the flag of that name."""

    load_format: str | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    quantization: str | None = None
    max_model_len: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1)
    trust_remote_code: bool | None = None
    allow_pickle: bool | None = None
    """Load weights that are Python pickles (.bin, .pt): they can run code. Not a vLLM flag."""
    enable_lora: bool | None = None
    """Start the engine so that adapters can be loaded; put on by itself with the first adapter."""
    max_lora_rank: int | None = Field(None, ge=1)
    max_loras: int | None = Field(None, ge=1)
    """Adapters that may take part in one batch."""
    max_cpu_loras: int | None = Field(None, ge=1)
    """Adapters kept in the node's memory; others are read from disk again when they are asked for."""


class TokenizerSettings(Resource):
    """Tokenizer settings of vLLM. `chat_template` is a Jinja template's text."""

    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    chat_template: str | None = Field(None, max_length=200_000)


class SystemSettings(Resource):
    """Memory and worker settings of vLLM."""

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_parallel_loading_workers: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)
    swap_space: float | None = Field(None, ge=0)
    kv_cache_memory_bytes: str | None = None
    compile_cache: bool | None = None
    """Keep what vLLM compiles on the node, for the next start of the same model (the default). Not a vLLM flag."""
    sleep_timeout: float | None = Field(None, gt=0, le=525_600)
    """Minutes without a request after which a replica's engine sleeps: its weights wait in the node's memory, its cache is given
    up, and the next request wakes it. None = never. Needs an engine with a sleep mode: vLLM on GPUs has one. Not a vLLM flag."""


class ModelSettings(Resource):
    """Typed engine settings by group; anything else goes into `model.args`."""

    llm: LlmSettings = LlmSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    system: SystemSettings = SystemSettings()
