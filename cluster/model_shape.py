"""The dimensions of a model as its config.json has them, under whatever names: layers, heads, cache per token, parameters.

Pure. What is not in the configuration is not guessed: `Shape.unknown` names it. What fits where is `cluster.fit`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["full", "sliding", "latent", "none"]

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where multimodal models keep their language model."""
ENCODERS = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "modernbert", "nomic_bert", "mpnet", "albert", "new"}
    | {"gte", "deberta", "deberta-v2", "eurobert", "jina_bert", "ernie"}
)
"""Model types that see a text as a whole: they keep no cache between tokens."""
ALTERNATING = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Model types of which every n-th layer sees all, and the others a window, where the configuration does not list the layers."""
LAYER_KINDS: Mapping[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "none",
    "mamba": "none",
    "recurrent": "none",
    "conv": "none",
}
MOST_LAYERS = 4096
"""A configuration that says more says nothing: it comes from anybody."""
FLOAT_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8_e4m3fn": 1}
QUANTIZED_BITS: Mapping[str, float] = {
    **dict.fromkeys(("fp8", "fbgemm_fp8", "modelopt", "w8a8", "finegrained_fp8"), 8),
    **dict.fromkeys(("awq", "gptq", "bitsandbytes", "gguf", "mxfp4", "modelopt_fp4", "nvfp4", "auto-round", "quark", "hqq"), 4),
}


@dataclasses.dataclass(frozen=True)
class Layers:
    """`count` layers whose cache holds `numbers` per token, for the last `window` tokens (None = all)."""

    kind: Kind
    count: int
    numbers: int
    window: int | None = None

    @property
    def split(self) -> bool:
        """Whether tensor parallelism divides the heads of its cache. The latent of MLA is the same on every accelerator."""
        return self.kind != "latent"


@dataclasses.dataclass(frozen=True)
class Shape:
    """What counts for memory. 0 or '' = not in the configuration."""

    architecture: str
    model_type: str = ""
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    max_length: int = 0
    """The longest context that the model was made for."""
    dtype: str = ""
    quantization: str = ""
    """Of the weights in the repository (fp8, awq, ...); '' = none."""
    bits: float = 16
    """Of one weight in the repository."""
    experts: int = 0
    encoder: bool = False
    cache: tuple[Layers, ...] = ()
    parameters: int = 0
    """By the public formulae for transformers, from the dimensions; 0 where they are not known."""
    unknown: tuple[str, ...] = ()

    @property
    def has_cache(self) -> bool:
        """Whether requests take memory per token."""
        return any(group.numbers for group in self.cache)


def of(config: Mapping[str, Any]) -> Shape:
    """Reads a config.json. Sources: the `PretrainedConfig` of each family in Hugging Face transformers."""
    text = _text(config)
    heads = _number(text, "num_attention_heads", "n_head", "num_heads", "n_heads")
    hidden = _number(text, "hidden_size", "n_embd", "d_model", "dim")
    layers = _number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    layers = layers if layers <= MOST_LAYERS else 0
    head_dim = _number(text, "head_dim") or (hidden // heads if heads else 0)
    kv_heads = _kv_heads(text, heads)
    name, bits = _quantization({**config, **text})
    model_type = str(text.get("model_type") or config.get("model_type") or "")
    encoder = model_type in ENCODERS and not text.get("is_decoder")
    found = Shape(
        architecture=_architecture(config),
        model_type=model_type,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_number(text, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 4 * hidden,
        vocabulary=_number(text, "vocab_size") or _number(config, "vocab_size"),
        max_length=_max_length(text),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype") or "").removeprefix(
            "torch."
        ),
        quantization=name,
        bits=bits,
        experts=_number(text, "n_routed_experts", "num_local_experts", "num_experts"),
        encoder=encoder,
        cache=() if encoder else _cache(text, layers, kv_heads, head_dim, model_type),
    )
    parameters = _parameters(found, text)
    return dataclasses.replace(found, parameters=parameters, unknown=_unknown(found, text))


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of the configuration."""
    for name in NESTED:
        inner = config.get(name)
        if isinstance(inner, Mapping):
            return _text(inner)
    return config


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0])[:100] if isinstance(names, Sequence) and not isinstance(names, str) and names else ""


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that is a whole number from 1 up, else 0."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < 2**53:
            return int(value)
    return 0


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Grouped-query attention (Ainslie et al., 2023) keeps fewer key and value heads than query heads; Falcon's older one a single."""
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        return 1
    return _number(config, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "n_kv_heads") or heads


def _max_length(config: Mapping[str, Any]) -> int:
    """As vLLM derives it: position embeddings, times the factor of those ways of scaling that stretch them."""
    longest = _number(config, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "model_max_length", "n_ctx")
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return longest
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if kind not in ("linear", "dynamic", "yarn") or not isinstance(factor, int | float):
        return longest
    original = _number(scaling, "original_max_position_embeddings")
    return int((original or longest) * factor)


def _quantization(config: Mapping[str, Any]) -> tuple[str, float]:
    """(method, bits of one weight) of the repository's own quantization."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(found, Mapping):
        return "", 8 * FLOAT_BYTES.get(str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch."), 2)
    method = str(found.get("quant_method") or found.get("quant_algo") or "quantized").lower()
    bits = _number(found, "bits", "w_bit", "weight_bits") or QUANTIZED_BITS.get(method, 0)
    if found.get("load_in_8bit") is True:
        bits = 8
    for group in _groups(found):
        bits = bits or _number(group, "num_bits")
    return method, bits or 8


def _groups(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The weights' parts of the groups of compressed-tensors."""
    groups = found.get("config_groups")
    rows = groups.values() if isinstance(groups, Mapping) else ()
    return [row["weights"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("weights"), Mapping)]


def _cache(config: Mapping[str, Any], layers: int, kv_heads: int, head_dim: int, model_type: str) -> tuple[Layers, ...]:
    """What is kept per token. Attention keeps a key and a value per head: 2 x heads x head dimension (Vaswani et al., 2017).

    Multi-head latent attention (DeepSeek-V2, 2024, section 2.1) keeps one compressed vector and the rotary part of the key.
    """
    latent = _number(config, "kv_lora_rank")
    if latent:
        return (Layers("latent", layers, latent + _number(config, "qk_rope_head_dim")),)
    kinds = _kinds(config, layers, model_type)
    window = _number(config, "sliding_window", "attention_chunk_size") or None
    numbers = 2 * kv_heads * head_dim
    groups = []
    for kind in ("full", "sliding", "none"):
        count = kinds.count(kind)
        if count:
            each = Layers(kind, count, 0 if kind == "none" else numbers, window if kind == "sliding" else None)
            groups.append(each)
    return tuple(groups)


def _kinds(config: Mapping[str, Any], layers: int, model_type: str) -> list[Kind]:
    listed = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(listed, Sequence) and not isinstance(listed, str) and listed:
        return [LAYER_KINDS.get(str(name), "full") for name in listed[:MOST_LAYERS]]
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:  # M: Mamba, *: attention, -: feed-forward
        return ["full" if sign == "*" else "none" for sign in pattern[:MOST_LAYERS]]
    interval = _number(config, "full_attention_interval", "attn_layer_period")
    if interval and not config.get("sliding_window"):
        return ["full" if (number + 1) % interval == 0 else "none" for number in range(layers)]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full"] * layers
    every = _number(config, "sliding_window_pattern", "_sliding_window_pattern") or ALTERNATING.get(model_type, 0)
    if not every:
        return ["sliding"] * layers
    return ["full" if (number + 1) % every == 0 else "sliding" for number in range(layers)]


def _parameters(shape: Shape, config: Mapping[str, Any]) -> int:
    """Embeddings, attention projections, feed-forward networks and experts; norms and biases are under a thousandth."""
    if not (shape.layers and shape.hidden and shape.heads and shape.vocabulary):
        return 0
    tied = config.get("tie_word_embeddings", shape.encoder) is True or shape.encoder
    embeddings = shape.vocabulary * shape.hidden * (1 if tied else 2)
    gated = shape.hidden * shape.intermediate * (2 if shape.encoder or shape.model_type in ("gpt2", "opt", "gpt_neox") else 3)
    attention = _attention(shape, config)
    if not shape.experts:
        return embeddings + shape.layers * (attention + gated)
    dense = _number(config, "first_k_dense_replace")
    one = 3 * shape.hidden * (_number(config, "moe_intermediate_size") or shape.intermediate)
    shared = _number(config, "n_shared_experts") * one + 3 * shape.hidden * _number(config, "shared_expert_intermediate_size")
    sparse = shape.experts * one + shared + shape.hidden * shape.experts
    return embeddings + shape.layers * attention + dense * gated + (shape.layers - dense) * sparse


def _attention(shape: Shape, config: Mapping[str, Any]) -> int:
    latent = _number(config, "kv_lora_rank")
    if not latent:
        return shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    rope, nope, value = (_number(config, name) for name in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    compressed = _number(config, "q_lora_rank")
    query = (
        (shape.hidden * compressed + compressed * shape.heads * (nope + rope)) if compressed else shape.hidden * shape.heads * (nope + rope)
    )
    return query + shape.hidden * (latent + rope) + latent * shape.heads * (nope + value) + shape.heads * value * shape.hidden


def _unknown(shape: Shape, config: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = {
        "architectures": shape.architecture,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.max_length,
    }
    missing = [name for name, value in wanted.items() if not value]
    if any(group.kind == "none" for group in shape.cache):
        missing.append("the state of its recurrent layers")
    if config.get("is_encoder_decoder") is True:
        missing.append("the cache of its cross-attention")
    return tuple(missing)
