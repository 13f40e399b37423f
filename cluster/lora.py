"""LoRA adapters as files and as settings of their engine: what an engine must be started with, and which adapter it can take.

Pure but for reading an adapter's configuration; used before an adapter is accepted and again before it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import errors, vllm_words
from cluster import spec as specs

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ENABLE, MAX_RANK = "--enable-lora", "--max-lora-rank"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for the highest rank (1 left out: nobody means it)."""
ENGINE_RANK = 16
"""vLLM's own bound, where LoRA was switched on without one."""
DEFAULTS = {"enable_lora": True, "max_lora_rank": 32, "max_loras": 4, "max_cpu_loras": 32}
"""What the first adapter switches on, where the endpoint does not say."""
FLAGS = {name: "--" + name.replace("_", "-") for name in DEFAULTS}
VLLM_VARIANTS = frozenset({"vLLM", "huggingface", "tgi"})
LARGEST_CONFIG = 1_000_000
HEADS = frozenset({"classifier", "score"})


class Refused(errors.InvalidRequest):
    """The adapter cannot be loaded; `reason` is a CamelCase slug."""

    def __init__(self, reason: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.reason = reason


def enabled(model: specs.Model) -> bool:
    """Whether the engine of this model is started so that adapters can be loaded."""
    said = model.settings.llm.enable_lora
    return said if said is not None else any(word.flag == ENABLE and not word.negated for word in _words(model))


def max_rank(model: specs.Model) -> int:
    """The highest rank of an adapter that the engine takes."""
    words = (int(word.text) for word in _words(model) if word.flag == MAX_RANK and word.text.isdigit())
    return model.settings.llm.max_lora_rank or next(words, ENGINE_RANK)


def switched_on(model: specs.Model) -> specs.Model:
    """`model` with the settings that its adapters need. They stay when the last adapter goes: taking them back would cost a start.

    Raises InvalidRequest where the endpoint says that LoRA is to be off.
    """
    if not model.adapters:
        return model
    words = _words(model)
    if model.settings.llm.enable_lora is False or any(word.flag == ENABLE and word.negated for word in words):
        raise errors.InvalidRequest("Adapters need LoRA: leave enableLora out, or set it to true.", param="model.settings.llm.enableLora")
    if enabled(model):
        return model
    said = {word.flag for word in words}
    llm = model.settings.llm
    missing = {name: value for name, value in DEFAULTS.items() if getattr(llm, name) is None and FLAGS[name] not in said}
    if llm.max_loras is not None and "max_cpu_loras" in missing:
        missing["max_cpu_loras"] = max(DEFAULTS["max_cpu_loras"], llm.max_loras)
    if llm.max_cpu_loras is not None and "max_loras" in missing:
        missing["max_loras"] = min(DEFAULTS["max_loras"], llm.max_cpu_loras)
    settings = model.settings.model_copy(update={"llm": llm.model_copy(update=missing)})
    return model.model_copy(update={"settings": settings})


def check_folder(name: str, folder: Path, highest: int) -> Mapping[str, Any]:
    """The configuration of the adapter in `folder`, which an engine that takes ranks up to `highest` can load. Raises Refused."""
    config = _config(name, folder)
    if not (folder / WEIGHTS).is_file():
        pickles = any((folder / f"adapter_model{suffix}").exists() for suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise Refused("PickleRefused", f"The adapter {name} has pickled weights, which can run code: save it as {WEIGHTS}.")
        raise Refused("NoWeights", f"The adapter {name} has no {WEIGHTS}.")
    check_config(name, config, highest)
    return config


def check_config(name: str, config: Mapping[str, Any], highest: int) -> None:
    """Raises Refused for what vLLM cannot load: no LoRA, too high a rank, kinds of LoRA that it does not have."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise Refused("NotAnAdapter", f"The adapter {name} is no LoRA: its peft_type is {str(kind)[:40]!r}.")
    rank = _rank(config)
    if rank is None:
        raise Refused("NotAnAdapter", f"The adapter {name} says no rank: `r` in its {CONFIG} is to be a whole number over 0.")
    if rank > highest:
        fitting = next((value for value in RANKS if value >= rank), None)
        advice = f"set model.settings.llm.maxLoraRank to {fitting}" if fitting else f"the most that the engine can take is {RANKS[-1]}"
        raise Refused("RankTooHigh", f"The adapter {name} has rank {rank}, and this endpoint takes up to {highest}: {advice}.")
    lacking = _unsupported(config)
    if lacking:
        raise Refused("UnsupportedAdapter", f"The adapter {name} uses {lacking}, which the engine does not have.")


def _words(model: specs.Model) -> list[vllm_words.Setting]:
    """vLLM's flags among the arguments; those of another engine are not ours to read."""
    return vllm_words.parse(model.args) if model.image.variant in VLLM_VARIANTS else []


def _config(name: str, folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Refused("NotAnAdapter", f"The adapter {name} is no LoRA: there is no {CONFIG}.") from None
    except (OSError, ValueError, RecursionError):
        raise Refused("NotAnAdapter", f"The {CONFIG} of the adapter {name} cannot be read.") from None
    if not isinstance(found, dict):
        raise Refused("NotAnAdapter", f"The {CONFIG} of the adapter {name} is no JSON object.")
    return found


def _rank(config: Mapping[str, Any]) -> int | None:
    """The highest rank of any module."""
    patterns = config.get("rank_pattern") or {}
    said = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [None])]
    ranks = [rank for rank in said if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0]
    return max(ranks) if len(ranks) == len(said) else None


def _unsupported(config: Mapping[str, Any]) -> str:
    if config.get("use_dora"):
        return "DoRA"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "biases"
    saved = config.get("modules_to_save") or []
    if isinstance(saved, list) and set(map(str, saved)) - HEADS:
        return f"whole modules of its own ({', '.join(map(str, saved))[:80]})"
    return ""
