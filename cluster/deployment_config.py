"""`config/deployment_config.json` of a model, in the form of OCI's AI Quick Actions: what its author says of hardware and flags.

    {"shape": ["nvidia-h200", ...], "configuration": {"nvidia-h200": {"parameters": {"VLLM_PARAMS": "--max-model-len 4096"}}}}

A shape is an instance type, or `type.xN` for one size of it. Pure; the user's own flags win over the author's.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import errors, hardware, vllm_flags, vllm_words
from cluster import spec as specs

VLLM_PARAMS, OTHERS = "VLLM_PARAMS", ("TGI_PARAMS", "TEI_PARAMS", "CONTAINER_PARAMS")
PATH = "config/deployment_config.json"


@dataclasses.dataclass(frozen=True)
class Advice:
    """What the file means for one endpoint: flags that the user did not say, and notes."""

    args: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def advise(config: Mapping[str, Any], spec: specs.EndpointSpec, rows: Sequence[hardware.Instance], placement: specs.Placement) -> Advice:
    """The author's flags for the endpoint's instance. Raises InvalidRequest for an instance type that the author has left out.

    Types count as left out only when the file names some that this cluster has: a file that is about another cloud's shapes says
    nothing here. Flags that cannot be are left out with a note.
    """
    if not config:
        return Advice()
    compute, notes = spec.compute, []
    known = {row.type for row in rows}
    listed = [name for name in _words(config.get("shape")) if _type(name) in known]
    if listed and not _mine(listed, compute):
        raise errors.InvalidRequest(
            f"The model's author offers it on {', '.join(listed)} ({PATH}), not on {compute.instance_type} {compute.instance_size}.",
            param="compute.instanceType",
        )
    if config.get("shape") and not listed:
        notes.append(f"{PATH} names no instance type of this cluster: its list of shapes is not used.")
    own = _configuration(config, compute)
    if own.get("multi_model_deployment"):
        notes.append(f"{PATH}: multi_model_deployment is about several models on one instance and is not used.")
    parameters = own.get("parameters")
    parameters = parameters if isinstance(parameters, Mapping) else {}
    notes += [f"{PATH}: {name} is not vLLM's and is not used." for name in OTHERS if parameters.get(name)]
    args, refused = _flags(parameters.get(VLLM_PARAMS), spec.model, placement)
    return Advice(args, (*notes, *refused))


def merged(args: Sequence[str], model: specs.Model) -> tuple[str, ...]:
    """The author's flags, but for those that the user says, and then the user's."""
    said = {*vllm_flags.typed(model), *(setting.flag for setting in vllm_words.parse(model.args))}
    kept = [setting for setting in vllm_words.parse(args) if setting.flag not in said]
    return (*(word for setting in kept for word in _as_words(setting)), *model.args)


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _type(shape: str) -> str:
    """`nvidia-h200.x2` -> `nvidia-h200`."""
    name, _, size = shape.rpartition(".x")
    return name if name and size.isdigit() else shape


def _mine(listed: Sequence[str], compute: specs.Compute) -> bool:
    return compute.instance_type in listed or f"{compute.instance_type}.{compute.instance_size}" in listed


def _configuration(config: Mapping[str, Any], compute: specs.Compute) -> Mapping[str, Any]:
    """What is said for this size, else for its type."""
    all_of_them = config.get("configuration")
    if not isinstance(all_of_them, Mapping):
        return {}
    for name in (f"{compute.instance_type}.{compute.instance_size}", compute.instance_type):
        if isinstance(all_of_them.get(name), Mapping):
            found: Mapping[str, Any] = all_of_them[name]
            return found
    return {}


def _flags(text: Any, model: specs.Model, placement: specs.Placement) -> tuple[tuple[str, ...], list[str]]:
    """(words to add, notes on those that were left out)."""
    if not isinstance(text, str) or not text.strip():
        return (), []
    try:
        given = vllm_words.parse(shlex.split(text))
    except (errors.MoorageError, ValueError) as exc:
        return (), [f"{PATH}: {VLLM_PARAMS} cannot be read and is not used: {getattr(exc, 'message', exc)}"]
    said = {*vllm_flags.typed(model), *(setting.flag for setting in vllm_words.parse(model.args))}
    words: list[str] = []
    notes: list[str] = []
    for setting in given:
        if setting.flag in said:
            continue
        mine = _as_words(setting)
        try:
            vllm_flags.check(model.model_copy(update={"args": (*model.args, *words, *mine)}), placement)
        except errors.InvalidRequest as exc:
            notes.append(f"{PATH}: {' '.join(mine)} is not used: {exc.message}")
            continue
        words += mine
    return tuple(words), notes


def _as_words(setting: vllm_words.Setting) -> list[str]:
    name = f"{setting.flag}.{setting.key}" if setting.key else setting.flag
    return [name.replace("--", "--no-", 1) if setting.negated else name, *setting.values]
