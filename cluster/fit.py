"""Whether a model fits an instance, before anything starts: weights, cache, working memory, context and concurrency. Pure.

How vLLM divides a GPU (docs.vllm.ai, "Conserving Memory" and "Optimization and Tuning"): of its memory it takes the share
`gpu_memory_utilization`; weights and the working memory of the largest step come off first, what is left is the key-value
cache. What was measured when the same model was loaded on the same instance replaces the estimate (`Measured`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import hardware, model_shape, vllm_flags, vllm_words
from cluster import spec as specs
from cluster.model_facts import Facts
from cluster.model_shape import Shape

GIB = 1024**3
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' types that are turned into the type of computation when they are loaded."""
STORED_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
FIXED_GPU_BYTES, EACH_GPU_BYTES = int(0.9 * GIB), int(0.5 * GIB)
"""What CUDA, its graphs and kernels take on each GPU, and what the communication between several takes besides."""
FIXED_CPU_BYTES = int(1.5 * GIB)
CPU_CACHE_SHARE, CPU_CACHE_LEAST, CPU_CACHE_MOST = 10, 256 << 20, 1 << 30
"""What deployments.llm gives the cache on the CPU where nobody says."""
LARGE_GPU = 70 * GIB
"""From this memory on vLLM takes larger steps (`EngineArgs`, defaults by hardware): 8192 tokens of 1024 requests, else 2048 of 256."""
SHORT = 4096
BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an endpoint says that counts for memory. None or '' = vLLM's own choice."""

    max_model_len: int | None = None
    dtype: str = ""
    quantization: str = ""
    kv_cache_dtype: str = ""
    utilization: float = 0.92
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_bytes: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None

    @classmethod
    def of(cls, model: specs.Model) -> Settings:
        """From the typed settings and the flags. Raises InvalidRequest for flags that cannot be."""
        said = {**vllm_flags.typed(model), **{setting.flag: setting for setting in vllm_words.parse(model.args)}}
        usual = vllm_words.flags()["--gpu-memory-utilization"].get("default", cls.utilization)

        def number(flag: str) -> int | None:
            found = vllm_words.size(said[flag].text) if flag in said else None
            return found or None

        def word(flag: str) -> str:
            text = said[flag].text if flag in said else ""
            return "" if text in ("auto", "None") else text

        return cls(
            max_model_len=number("--max-model-len"),
            dtype=word("--dtype"),
            quantization=word("--quantization"),
            kv_cache_dtype=word("--kv-cache-dtype"),
            utilization=float(word("--gpu-memory-utilization") or usual),
            max_num_seqs=number("--max-num-seqs"),
            max_num_batched_tokens=number("--max-num-batched-tokens"),
            kv_cache_bytes=number("--kv-cache-memory-bytes"),
            tensor=number("--tensor-parallel-size"),
            pipeline=number("--pipeline-parallel-size"),
            data=number("--data-parallel-size"),
        )

    @property
    def signature(self) -> str:
        """Tells measurements made with other settings apart."""
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "")}, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What vLLM said when it loaded the model: `weights_bytes` on one accelerator, tokens of the cache. 0 = it did not say."""

    weights_bytes: int = 0
    cache_tokens: int = 0
    max_model_len: int = 0
    concurrency: float = 0.0


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a model fits one instance. Sizes in bytes, of the whole instance. `fits` None = cannot be told."""

    instance: hardware.Instance
    fits: bool | None
    verdict: str
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    weights: int = 0
    cache: int = 0
    """What one request of `max_model_len` tokens takes."""
    memory: int = 0
    """What may be used for weights and cache."""
    max_model_len: int = 0
    concurrency: float = 0.0
    """Requests of `max_model_len` tokens at once."""
    concurrency_4k: float = 0.0
    measured: bool = False
    needs_parallel: bool = False
    """It only starts with the parallel sizes shown, which have to be set."""
    remedies: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Share:
    """What one accelerator has and holds."""

    memory: int
    weights: int
    overhead: int
    batched: int
    seqs: int
    cache: int
    """Left for the cache, negative when the weights do not fit."""


def parameters(shape: Shape, facts: Facts) -> int:
    """How many the model has: counted in its files where they are not packed, else by the dimensions. 0 = not known."""
    counted = sum(facts.tensors.values())
    if counted and (not shape.quantization or shape.bits >= 8):
        return counted
    if shape.parameters:
        return shape.parameters
    return int(facts.weight_bytes * 8 / shape.bits) if facts.weight_bytes else 0


def weights_bytes(shape: Shape, facts: Facts, settings: Settings) -> int:
    """Memory of the weights as vLLM holds them; 0 = not known.

    A repository's quantized weights stay as they are; others are turned into the type of computation, 16 bits unless said
    otherwise (so OCI's rule of thumb: 2 GB per billion parameters). `quantization` of the user turns all but the embeddings.
    """
    load = model_shape.FLOAT_BYTES.get(settings.dtype, 2)
    if settings.quantization and not shape.quantization:
        count = parameters(shape, facts)
        embeddings = min(count, 2 * shape.vocabulary * shape.hidden)
        bits = model_shape.QUANTIZED_BITS.get(settings.quantization, 8)
        return int((count - embeddings) * bits / 8) + embeddings * load
    if shape.quantization:
        return facts.weight_bytes or int(shape.parameters * shape.bits / 8)
    if facts.tensors:
        return sum(count * (load if kind in FLOATS else STORED_BYTES.get(kind, 1)) for kind, count in facts.tensors.items())
    if facts.weight_bytes:
        return int(facts.weight_bytes * load / model_shape.FLOAT_BYTES.get(shape.dtype, 2))
    return shape.parameters * load


def cache_bytes(shape: Shape, tokens: int, settings: Settings, *, tensor: int = 1, pipeline: int = 1, batched: int = 0) -> int:
    """What one request of so many tokens takes on one accelerator.

    Layers with a window keep the window and the step in progress (vLLM's SlidingWindowSpec). Fewer key-value heads than
    accelerators are repeated on each; a latent is on all of them.
    """
    each = 1 if settings.kv_cache_dtype.startswith("fp8") else model_shape.FLOAT_BYTES.get(settings.dtype, 2)
    heads = max(1, shape.kv_heads)
    total = 0.0
    for group in shape.cache:
        kept = tokens if group.window is None else min(tokens, group.window - 1 + batched + BLOCK)
        share = -(-heads // tensor) / heads if group.split else 1.0
        total += group.count / pipeline * group.numbers * share * kept * each
    return int(total)


def parallel(shape: Shape, count: int, settings: Settings) -> tuple[int, int, int]:
    """(tensor, pipeline, data): what was said, else as much tensor parallelism as divides the heads, and copies for the rest."""
    if settings.tensor or settings.pipeline or settings.data:
        others = (settings.pipeline or 1) * (settings.data or 1)
        return settings.tensor or max(1, count // others), settings.pipeline or 1, settings.data or 1
    tensor = count
    while shape.heads and shape.heads % tensor and tensor % 2 == 0:
        tensor //= 2
    return tensor, 1, count // tensor


def of(shape: Shape, facts: Facts, settings: Settings, instance: hardware.Instance, measured: Measured | None = None) -> Fit:
    """How the model fits this instance."""
    tensor, pipeline, data = parallel(shape, instance.count, settings) if instance.gpu else (1, 1, 1)
    split = shape.heads and shape.heads % tensor
    base = Fit(instance, None, "", tensor, pipeline, data, needs_parallel=data > 1 and not (settings.tensor or settings.data))
    weights = weights_bytes(shape, facts, settings)
    if measured and measured.weights_bytes:
        weights = measured.weights_bytes * tensor * pipeline
    if not weights:
        return dataclasses.replace(base, verdict="The size of the weights is not known, so it cannot be told.")
    base = dataclasses.replace(base, weights=weights * data)
    if split:
        return dataclasses.replace(
            base, fits=False, verdict=f"Its {shape.heads} attention heads cannot be divided over {tensor} accelerators."
        )
    if not _memory(instance):
        return dataclasses.replace(base, verdict="The memory of this accelerator is not known: the operator can declare gpuMemoryGb.")
    share = _share(shape, settings, instance, weights // (tensor * pipeline), tensor)
    base = dataclasses.replace(base, memory=max(0, share.weights + share.cache) * tensor * pipeline * data)
    if share.cache <= 0:
        return dataclasses.replace(base, fits=False, verdict=_too_big(weights, base, share))
    return _with_context(base, shape, settings, share, measured)


def _with_context(base: Fit, shape: Shape, settings: Settings, share: _Share, measured: Measured | None) -> Fit:
    sizes = {"tensor": base.tensor, "pipeline": base.pipeline, "batched": share.batched}
    copies = base.data
    if not shape.has_cache:
        length = min(settings.max_model_len or shape.max_length, shape.max_length) or shape.max_length
        words = "fits; it keeps no cache" if shape.encoder else "The weights fit; the configuration does not say what the cache takes"
        fits = True if shape.encoder else None
        return dataclasses.replace(
            base, fits=fits, verdict=f"{words}.", max_model_len=length, concurrency=share.seqs, concurrency_4k=share.seqs
        )
    room = share.cache
    if measured and measured.cache_tokens:
        room = measured.cache_tokens * cache_bytes(shape, SHORT, settings, **sizes) // SHORT
    longest = longest_context(shape, settings, room, **sizes)
    if measured and measured.max_model_len:
        longest = max(longest, measured.max_model_len)
    model_max = shape.max_length or longest
    wanted = settings.max_model_len or model_max
    if settings.max_model_len and settings.max_model_len > longest:
        return dataclasses.replace(
            base,
            fits=False,
            verdict=f"A context of {wanted} tokens does not fit: {longest} tokens do.",
            max_model_len=longest,
            cache=cache_bytes(shape, wanted, settings, **sizes) * base.tensor * base.pipeline,
            remedies=(f"maxModelLen of at most {longest}",) if longest >= BLOCK else (),
        )
    length = min(wanted, longest)
    one = max(1, cache_bytes(shape, length, settings, **sizes))
    short = max(1, cache_bytes(shape, min(SHORT, length), settings, **sizes))
    most = share.seqs * copies
    told = measured.concurrency if measured and measured.concurrency else room / one
    found = dataclasses.replace(
        base,
        fits=length >= BLOCK,
        verdict="",
        max_model_len=length,
        cache=one * base.tensor * base.pipeline,
        concurrency=round(min(most, told * copies), 2),
        concurrency_4k=round(min(most, room / short * copies), 2),
        measured=measured is not None and bool(measured.cache_tokens),
    )
    return dataclasses.replace(found, verdict=_verdict(found, wanted))


def longest_context(shape: Shape, settings: Settings, room: int, *, tensor: int = 1, pipeline: int = 1, batched: int = 0) -> int:
    """Tokens of the longest request for which `room` bytes on each accelerator are enough, up to the model's own limit."""
    low, high = 0, shape.max_length or 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        if cache_bytes(shape, middle, settings, tensor=tensor, pipeline=pipeline, batched=batched) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def recommend(
    shape: Shape,
    facts: Facts,
    settings: Settings,
    rows: Sequence[hardware.Instance],
    measured: Mapping[tuple[str, str], Measured] | None = None,
) -> tuple[Fit, ...]:
    """The fit of every instance, each with what would make it fit where it does not."""
    found = [of(shape, facts, settings, row, (measured or {}).get((row.type, row.size))) for row in rows]
    return tuple(one if one.fits is not False else _with_remedies(one, found, shape, facts, settings) for one in found)


def ranked(fits: Sequence[Fit]) -> dict[tuple[str, str], dict[str, int]]:
    """(type, size) -> its place by cost and by performance among those that fit, 1 = best.

    Without prices fewer and smaller accelerators are cheaper. Performance: decoding is bound by memory bandwidth, so that counts
    first, of the accelerators that work on one request; then how many requests fit at once.
    """
    good = [one for one in fits if one.fits]
    priced = any(one.instance.price_per_hour for one in good)
    by_cost = sorted(good, key=lambda one: (one.instance.price_per_hour if priced else 0, one.instance.gpu, one.instance.bandwidth))
    by_speed = sorted(good, key=lambda one: (-one.instance.bandwidth / one.data, -one.concurrency))
    places: dict[tuple[str, str], dict[str, int]] = {}
    for name, order in (("cost", by_cost), ("performance", by_speed)):
        for place, one in enumerate(order, 1):
            places.setdefault((one.instance.type, one.instance.size), {})[name] = place
    return places


def _with_remedies(one: Fit, others: Sequence[Fit], shape: Shape, facts: Facts, settings: Settings) -> Fit:
    remedies = list(one.remedies)
    larger = [row for row in others if row.fits and row.instance.type == one.instance.type and row.instance.count > one.instance.count]
    if larger:
        remedies.append(f"size {min(larger, key=lambda row: row.instance.count).instance.size}")
    if one.instance.gpu and not settings.quantization and not shape.quantization:
        for method in ("fp8", "bitsandbytes"):
            quantized = dataclasses.replace(settings, quantization=method)
            if of(shape, facts, quantized, one.instance).fits:
                remedies.append(f"quantization {method} ({_gb(weights_bytes(shape, facts, quantized))})")
                break
    elsewhere = [row for row in others if row.fits and row.instance.type != one.instance.type]
    if elsewhere and not larger:
        best = min(elsewhere, key=lambda row: (row.instance.price_per_hour, row.instance.gpu, row.instance.count))
        remedies.append(f"{best.instance.type} {best.instance.size}")
    return dataclasses.replace(one, remedies=tuple(remedies))


def _memory(instance: hardware.Instance) -> int:
    """Of one accelerator, or of all of an instance without."""
    return instance.gpu_memory_bytes // instance.count if instance.gpu else instance.memory_bytes


def _share(shape: Shape, settings: Settings, instance: hardware.Instance, weights: int, tensor: int) -> _Share:
    memory = _memory(instance)
    large = instance.gpu and memory >= LARGE_GPU
    seqs = settings.max_num_seqs or (1024 if large else 256)
    batched = settings.max_num_batched_tokens or (8192 if large else 2048)
    working = working_bytes(shape, batched, seqs, tensor)
    if instance.gpu:
        overhead = FIXED_GPU_BYTES + (EACH_GPU_BYTES if tensor > 1 else 0) + working
        cache = int(memory * settings.utilization) - weights - overhead
        if settings.kv_cache_bytes and memory - weights - overhead >= settings.kv_cache_bytes:
            cache = settings.kv_cache_bytes
        return _Share(memory, weights, overhead, batched, seqs, cache)
    overhead = FIXED_CPU_BYTES + working
    free = memory - weights - overhead
    cache = settings.kv_cache_bytes or max(CPU_CACHE_LEAST, min(CPU_CACHE_MOST, (memory - weights) // CPU_CACHE_SHARE))
    return _Share(memory, weights, overhead, batched, seqs, cache if cache <= free or (not shape.has_cache and free > 0) else free - cache)


def working_bytes(shape: Shape, batched: int, seqs: int, tensor: int = 1) -> int:
    """Of the largest step: per token its hidden states and the inner states of one feed-forward network at 16 bits, and per request
    the scores of the whole vocabulary at 32 bits, twice (vLLM samples once at start to measure it)."""
    hidden = batched * (6 * shape.hidden + 3 * shape.intermediate // tensor) * 2
    scores = 0 if shape.encoder else 2 * min(seqs, batched) * shape.vocabulary * 4
    return hidden + scores


def _too_big(weights: int, base: Fit, share: _Share) -> str:
    over = f"{_gb(share.weights)} on each accelerator" if base.instance.count > 1 and base.instance.gpu else _gb(weights)
    return f"Does not fit: the weights take {over}, working memory {_gb(share.overhead)}, of {_gb(share.memory)}."


def _verdict(found: Fit, wanted: int) -> str:
    if not found.fits:
        return "Does not fit: the weights leave no room for a cache."
    how_many = f"{found.concurrency:g} requests of that length at once"
    if found.max_model_len > SHORT:
        how_many += f", {found.concurrency_4k:g} of {SHORT} tokens"
    source = "measured" if found.measured else "estimated"
    if found.max_model_len < wanted:
        return f"Fits with a context of {found.max_model_len} of the model's {wanted} tokens; {how_many} ({source})."
    return f"Fits with a context of {found.max_model_len} tokens; {how_many} ({source})."


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def quantization_of(shape: Shape, settings: Settings) -> str:
    """The word for the type of the weights as they are held: fp8, awq, bfloat16, ..."""
    return (
        settings.quantization or shape.quantization or settings.dtype or (shape.dtype if shape.dtype not in ("", "float32") else "bfloat16")
    )


def summary(shape: Shape, facts: Facts, settings: Settings) -> dict[str, Any]:
    """What is known of the model, for the API."""
    return {
        "repository": facts.repository,
        "version": facts.version or None,
        "architecture": shape.architecture or None,
        "parameters": parameters(shape, facts) or None,
        "weightFilesGb": round(facts.weight_bytes / 1e9, 3) or None,
        "modelSizeGb": round(weights_bytes(shape, facts, settings) / 1e9, 3) or None,
        "quantization": quantization_of(shape, settings),
        "maxModelLen": shape.max_length or None,
        "kvCacheBytesPerToken": cache_bytes(shape, 1, settings) or None,
        "unknown": list(shape.unknown),
    }
