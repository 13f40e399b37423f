"""The vLLM engine: how its own API server is started for a replica. Imports no vLLM."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import engine_environment, errors, lora, spec, vllm_flags, vllm_words
from deployments import start_phases, vllm_api
from deployments.engine import Launch, Site

LOADERS = {
    "runai_streamer": "runai_model_streamer",
    "runai_streamer_sharded": "runai_model_streamer",
    "fastsafetensors": "fastsafetensors",
    "instanttensor": "instanttensor",
}
"""Formats of loading that are faster than vLLM's own, and the library that each needs."""

NO_DOMAIN = "media.invalid"
"""Media by URL would let a request reach addresses inside the cluster; only data URLs are left."""

POOLING_TASKS = frozenset(
    {"feature-extraction", "sentence-similarity", "sentence-embeddings", "sentence-ranking", "text-ranking", "text-classification"}
    | {"token-classification", "embed", "classify", "score"}
)
GENERATION_TASKS = frozenset({"text-generation", "text2text-generation", "image-text-to-text", "conversational", "generate"})

KV_SHARE = 10
"""On the CPU the key-value cache is touched at start, so it gets a tenth of the memory that is free, within these bounds."""
KV_LOWEST, KV_HIGHEST = 256 << 20, 1 << 30


class Llm:
    """See cluster.engine_settings.ModelSettings and VllmImage for the settings; `model.args` for all others."""

    milestones: Sequence[start_phases.Milestone] = (
        (re.compile(r"Starting to load model "), start_phases.LOADING),
        (re.compile(r"(?:Loading weights|Model loading) took "), start_phases.WARMING),
        (re.compile(r"Dynamo bytecode transform time|Compiling a graph for|Warming up model for the compilation"), start_phases.COMPILING),
        (re.compile(r"torch\.compile (?:took|takes) |Graph capturing finished|Warming up done"), start_phases.WARMING),
    )
    hang_after_s = 300.0
    """Longer than any prefill or compilation: the first request with logprobs took 30 s on a slow CPU."""

    def prepare(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """vLLM's server with its environment."""
        environment = _environment(replica.placement, site)
        model = replica.typed_model
        if model.settings.system.compile_cache is False:
            environment["VLLM_DISABLE_COMPILE_CACHE"] = "1"
        if lora.enabled(model):
            environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # by routes that the guard keeps for the supervisor
        forked_by = "" if len(replica.placement.bundles) > 1 else vllm_api.__name__
        return Launch((sys.executable, "-m", vllm_api.SERVER), environment, forked_by)

    def launch(self, replica: spec.ReplicaSpec, site: Site) -> Launch:
        """vLLM's command line. Raises InvalidRequest on settings that cannot be."""
        model = replica.typed_model
        vllm_flags.check(model, replica.placement)
        engine_environment.check(model.env)
        _check_loader(model)
        if site.model is None:
            raise errors.InvalidRequest("this engine needs a model", param="model.repository")
        base = self.prepare(replica, site)
        command = [*base.command, "--model", str(site.model), "--served-model-name", replica.endpoint]
        command += ["--host", site.host, "--port", str(site.port), "--middleware", "deployments.guard.Guard"]
        command += ["--disable-uvicorn-access-log", "--disable-fastapi-docs", "--enable-prompt-tokens-details"]
        command += ["--allowed-media-domains", *(site.media_hosts or (NO_DOMAIN,))]
        command += _defaults(model, replica.placement)
        command += _parallel(model, replica.placement, site)
        command += _typed(model)
        command += _chat_template(model, site.folder)
        return dataclasses.replace(base, command=(*command, *model.args))


def _defaults(model: spec.Model, placement: spec.Placement) -> list[str]:
    """What users who say nothing get."""
    said = {*vllm_flags.typed(model), *(setting.flag for setting in vllm_words.parse(model.args))}
    words: list[str] = []
    if "--max-model-len" not in said:
        words += ["--max-model-len", "auto"]  # as long as memory allows, rather than no start
    if "--runner" not in said and model.task in POOLING_TASKS:
        words += ["--runner", "pooling"]
    if "--runner" not in said and model.task in GENERATION_TASKS:
        words += ["--runner", "generate"]
    if model.settings.system.sleep_timeout is not None and vllm_flags.SLEEP_MODE not in said:
        words += [vllm_flags.SLEEP_MODE]
    sizes_cache = said & {"--kv-cache-memory-bytes", "--gpu-memory-utilization"} or "VLLM_CPU_KVCACHE_SPACE" in model.env
    if placement.gpus == 0 and not sizes_cache:
        words += ["--kv-cache-memory-bytes", str(_cache_bytes())]
    return words


def _check_loader(model: spec.Model) -> None:
    """Raises InvalidRequest where the weights are to be loaded by a library that this node does not have."""
    words = vllm_words.parse(model.args)
    chosen = model.settings.llm.load_format or next((word.text for word in words if word.flag == "--load-format"), "")
    library = LOADERS.get(chosen)
    if library is not None and importlib.util.find_spec(library) is None:
        package = library.replace("_", "-")
        raise errors.InvalidRequest(
            f"{chosen} needs the package {package} on every node: pip install {package}", param="model.settings.llm.loadFormat"
        )


def _parallel(model: spec.Model, placement: spec.Placement, site: Site) -> list[str]:
    tensor, pipeline, data = vllm_flags.parallel_sizes(model, placement)
    words: list[str] = []
    if placement.gpus:
        words += ["--tensor-parallel-size", str(tensor), "--pipeline-parallel-size", str(pipeline), "--data-parallel-size", str(data)]
    if len(placement.bundles) > 1:
        if not site.ray:
            raise errors.InvalidRequest("an engine that spans nodes needs the replica's placement group", param="compute.instanceSize")
        return [*words, "--distributed-executor-backend", "ray"]
    if placement.gpus == 0:
        return [*words, "--distributed-executor-backend", vllm_api.UNIPROC_EXECUTOR]
    return [*words, "--distributed-executor-backend", "mp"] if tensor * pipeline > 1 else words


def _typed(model: spec.Model) -> list[str]:
    """The typed settings, but for the parallel sizes."""
    words: list[str] = []
    for flag, setting in vllm_flags.typed(model).items():
        if flag in vllm_flags.PARALLEL:
            continue
        words += [flag.replace("--", "--no-", 1) if setting.negated else flag, *setting.values]
    return words


def _chat_template(model: spec.Model, folder: Path) -> list[str]:
    text = model.settings.tokenizer.chat_template
    if text is None:
        return []
    file = folder / "chat_template.jinja"
    file.write_text(text)
    return ["--chat-template", str(file)]


def _environment(placement: spec.Placement, site: Site) -> dict[str, str]:
    cache = site.cache / "vllm"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = {
        "VLLM_PLUGINS": "moorage",
        "VLLM_CACHE_ROOT": str(cache),
        "VLLM_MAX_N_SEQUENCES": "64",  # one request may not ask for thousands of answers
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",  # longer than the edge keeps idle connections, so that the edge closes them
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",  # bounded by deployments.dialects.responses
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    # On one node, what the engine's processes say to each other stays there.
    found["VLLM_HOST_IP"] = site.host if len(placement.bundles) > 1 else "127.0.0.1"
    if len(placement.bundles) > 1:
        found |= site.ray
    if placement.gpus == 0:
        found["OMP_NUM_THREADS"] = str(max(1, int(placement.cpus)))
        found["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # binding would put all replicas of the node on the same cores
    return found


def _cache_bytes() -> int:
    with open("/proc/meminfo") as memory:
        free = next(int(line.split()[1]) << 10 for line in memory if line.startswith("MemAvailable:"))
    return max(KV_LOWEST, min(KV_HIGHEST, free // KV_SHARE))
