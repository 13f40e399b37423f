"""Whether vLLM settings can be: flags that exist, values of their kind, nothing that is the platform's, nothing that contradicts.

Pure and without vLLM, so that a wrong setting is refused when it is written, not minutes later on a node.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cluster import errors, images, spec, vllm_words
from cluster.vllm_words import PARAM, Setting

OURS = "is set by the platform"
CODE = "would load code into the engine"
FILES = "would let the engine read or write files and addresses of its own choice"
DENIED: Mapping[str, str] = {
    **dict.fromkeys(("--host", "--port", "--uds", "--grpc", "--grpc-port", "--headless", "--api-server-count", "--config"), OURS),
    **dict.fromkeys(("--middleware", "--api-key", "--root-path", "--served-model-name", "--model", "--shutdown-timeout"), OURS),
    **dict.fromkeys(
        ("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--enable-ssl-refresh", "--ssl-cert-reqs", "--ssl-ciphers"), OURS
    ),
    **dict.fromkeys(("--allow-credentials", "--allowed-origins", "--allowed-methods", "--allowed-headers"), OURS),
    **dict.fromkeys(("--enable-offline-docs", "--disable-fastapi-docs", "--h11-max-header-count", "--disable-log-stats"), OURS),
    **dict.fromkeys(("--distributed-executor-backend", "--master-addr", "--master-port", "--nnodes", "--node-rank", "--device-ids"), OURS),
    **dict.fromkeys(("--data-parallel-rank", "--data-parallel-start-rank", "--data-parallel-size-local", "--data-parallel-address"), OURS),
    **dict.fromkeys(("--data-parallel-rpc-port", "--data-parallel-backend", "--data-parallel-hybrid-lb", "--ray-workers-use-nsight"), OURS),
    **dict.fromkeys(("--data-parallel-external-lb", "--data-parallel-multi-port-external-lb", "--data-parallel-supervisor-port"), OURS),
    **dict.fromkeys(("--tool-parser-plugin", "--reasoning-parser-plugin", "--logits-processors", "--io-processor-plugin"), CODE),
    **dict.fromkeys(("--scheduler-cls", "--worker-cls", "--worker-extension-cls", "--model-class-overrides", "--additional-config"), CODE),
    **dict.fromkeys(("--hf-token", "--hf-config-path", "--download-dir", "--allowed-local-media-path", "--tool-server"), FILES),
    **dict.fromkeys(("--logging-config", "--log-config-file", "--otlp-traces-endpoint", "--profiler-config"), FILES),
    **dict.fromkeys(("--kv-transfer-config", "--kv-events-config", "--ec-transfer-config", "--weight-transfer-config"), FILES),
    **dict.fromkeys(("--model-loader-extra-config", "--mm-encoder-fp8-scale-save-path", "--mm-encoder-fp8-scale-path"), FILES),
    "--lora-modules": "is a field of its own: model.adapters",
    "--default-mm-loras": FILES,
    "--allowed-media-domains": "is the operator's: MOORAGE_MEDIA_HOSTS lists the hosts that media may come from",
    "--chat-template": "is a setting of its own: model.settings.tokenizer.chatTemplate, with the template's text",
    "--trust-remote-code": "is a setting of its own: model.settings.llm.trustRemoteCode",
    "--revision": "is a field of its own: model.revision",
    "--code-revision": "is given by the revision of the model",
    "--trust-request-chat-template": "would let every request bring a program",
    "--trust-request-mm-kwargs": "would let every request change how media are decoded",
}
DENIED_KEYS = frozenset({"inductor_passes", "cache_dir", "debug_dump_path", "custom_passes", "post_grad_custom_post_pass", "save_path"})
"""Keys that no JSON value may have: they name files, or code to import."""

LOWEST: Mapping[str, float] = {
    "--max-model-len": 1,
    "--max-num-seqs": 1,
    "--max-num-batched-tokens": 1,
    "--block-size": 1,
    "--tensor-parallel-size": 1,
    "--pipeline-parallel-size": 1,
    "--data-parallel-size": 1,
    "--max-parallel-loading-workers": 1,
}
NO_FLAGS = {"allow_pickle", "chat_template", "compile_cache", "sleep_timeout"}
"""Typed settings that are no flags of vLLM."""
SLEEP_MODE = "--enable-sleep-mode"
PARALLEL = ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")


def check(model: spec.Model, placement: spec.Placement) -> None:
    """Raises InvalidRequest, naming the flag or field, when vLLM could not be started with these settings on this placement."""
    given = vllm_words.parse(model.args)
    for setting in given:
        _check_allowed(setting)
    written = typed(model)
    for setting in (*written.values(), *given):
        vllm_words.check_value(setting)
        _check_bounds(setting)
    _check_agreement(given, written)
    _check_sleep(model, given, placement)
    parallel_sizes(model, placement)


def typed(model: spec.Model) -> dict[str, Setting]:
    """The typed settings as flags. Raises InvalidRequest for one that this vLLM does not have."""
    groups = {"llm": model.settings.llm, "tokenizer": model.settings.tokenizer, "system": model.settings.system}
    found: dict[str, Setting] = {}
    for group, settings in groups.items():
        for name, value in settings.model_dump(exclude_none=True, exclude=NO_FLAGS).items():
            flag = "--" + name.replace("_", "-")
            if flag not in vllm_words.flags():
                raise errors.InvalidRequest(f"this version of vLLM has no setting {name}", param=f"model.settings.{group}.{name}")
            found[flag] = _setting(flag, value)
    image = model.image.vllm or images.VllmImage()
    for flag in PARALLEL:
        size = getattr(image, flag[2:].replace("-", "_"))
        if size is not None:
            found[flag] = _setting(flag, size)
    return found


def parallel_sizes(model: spec.Model, placement: spec.Placement) -> tuple[int, int, int]:
    """(tensor, pipeline, data) parallel sizes; tensor parallelism takes what the others leave of the accelerators.

    Raises InvalidRequest when they do not use exactly the placement's accelerators.
    """
    written = {**typed(model), **{setting.flag: setting for setting in vllm_words.parse(model.args)}}
    tensor, pipeline, data = (int(written[flag].text) if flag in written else None for flag in PARALLEL)
    have = max(1, placement.gpus)
    others = (pipeline or 1) * (data or 1)
    tensor = max(1, have // others) if tensor is None else tensor
    if tensor * others != have:
        sizes = f"tensor ({tensor}) x pipeline ({pipeline or 1}) x data ({data or 1}) parallel sizes"
        accelerators = f"{placement.gpus} accelerators" if placement.gpus else "no accelerators"
        raise errors.InvalidRequest(
            f"{sizes} must be {have} together: a replica of this instance has {accelerators}", param="model.image.vLLM.tensorParallelSize"
        )
    return tensor, pipeline or 1, data or 1


def _setting(flag: str, value: Any) -> Setting:
    return Setting(flag, negated=not value) if isinstance(value, bool) else Setting(flag, (str(value),))


def _check_allowed(setting: Setting) -> None:
    advice = DENIED.get(setting.flag)
    if advice is not None:
        raise errors.InvalidRequest(f"{setting.flag} cannot be given: it {advice}", param=PARAM)
    found = {setting.key.split(".")[-1].replace("-", "_")} if setting.key else _keys(setting.values)
    denied = next(iter(found & DENIED_KEYS), None)
    if denied is not None:
        raise errors.InvalidRequest(f"{setting.flag} cannot have {denied!r}: it {FILES}", param=PARAM)


def _keys(values: Iterable[str]) -> set[str]:
    """Every key of the JSON objects in `values`, at any depth."""
    keys: set[str] = set()

    def collect(pairs: list[tuple[str, Any]]) -> None:
        keys.update(key for key, _ in pairs)

    for value in values:
        if "{" in value:
            try:
                json.loads(value, object_pairs_hook=collect)
            except (ValueError, RecursionError):
                continue  # its kind is checked elsewhere
    return keys


def _check_bounds(setting: Setting) -> None:
    if setting.flag == "--gpu-memory-utilization" and not 0 < float(setting.text) <= 1:
        raise errors.InvalidRequest(f"{setting.flag} must be over 0 and at most 1, not {setting.text}", param=PARAM)
    lowest = LOWEST.get(setting.flag)
    if lowest is not None and setting.text.strip().lower() not in ("auto", "-1") and _number(setting.text) < lowest:
        raise errors.InvalidRequest(f"{setting.flag} must be at least {lowest:g}, not {setting.text}", param=PARAM)
    if setting.text.strip() == "-1" and lowest is not None and setting.flag != "--max-model-len":
        raise errors.InvalidRequest(f"{setting.flag} must be at least {lowest:g}, not -1", param=PARAM)


def _check_agreement(given: Sequence[Setting], written: Mapping[str, Setting]) -> None:
    """The same setting twice must be the same value: typed and in args, twice in args, or as a flag and its --no- form."""
    first: dict[tuple[str, str], Setting] = {}
    for setting in given:
        earlier = first.setdefault((setting.flag, setting.key), setting)
        if not _same(earlier, setting):
            raise errors.InvalidRequest(
                f"{setting.flag} is given twice with different values: {earlier.text} and {setting.text}", param=PARAM
            )
        own = written.get(setting.flag)
        if own is not None and not setting.key and not _same(own, setting):
            raise errors.InvalidRequest(
                f"{setting.flag} {setting.text} in model.args contradicts {own.text} in the typed settings: give it once", param=PARAM
            )


def _check_sleep(model: spec.Model, given: Sequence[Setting], placement: spec.Placement) -> None:
    asked = model.settings.system.sleep_timeout is not None
    if asked and not placement.gpus:
        raise errors.InvalidRequest(
            "vLLM sleeps on GPUs only: leave sleepTimeout out, or choose an instance with accelerators",
            param="model.settings.system.sleepTimeout",
        )
    if asked and any(setting.flag == SLEEP_MODE and setting.negated for setting in given):
        raise errors.InvalidRequest(f"--no-{SLEEP_MODE[2:]} in model.args contradicts sleepTimeout: leave one of them out", param=PARAM)


def _same(one: Setting, other: Setting) -> bool:
    if one.text == other.text:
        return True
    numbers = _number(one.text), _number(other.text)
    return not any(math.isnan(number) for number in numbers) and numbers[0] == numbers[1]


def _number(text: str) -> float:
    """The number in `text`, NaN when there is none."""
    size = vllm_words.size(text)
    if size is not None and not text.strip().replace(".", "").isdigit():
        return size
    try:
        return float(text)
    except ValueError:
        return math.nan
