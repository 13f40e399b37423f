"""What a source has, and which of it a replica needs. Pure: names, sizes and rules in, a choice or a refusal out.

What the chosen files contain is `inspection`'s to judge; bringing them is `transfer`'s.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from cluster import lora
from deployments.sources.errors import SourceError

CONFIGS = frozenset({"config.json", "params.json", "model_index.json"})
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*|random_states.*)\.(bin|pt|pth|pkl)")
"""Pickles that trainers leave beside the weights; no engine reads them."""
DATA = frozenset({".json", ".jsonl", ".txt", ".model", ".jinja", ".jinja2", ".tiktoken", ".yaml", ".yml", ".vocab", ".bpe", ".spm"})
NOT_LOADED = re.compile(r"(\..*|original|onnx|openvino|coreml|metal|runs|checkpoint-.*)", re.IGNORECASE)
"""Top folders with other formats or training remains."""
MODULE = re.compile(r"[0-9]+_\w+")
"""Folders of sentence-transformers modules, which have weights of their own."""
VARIANT = re.compile(r"\.(?:fp16|bf16|fp32|ema|non_ema)(?:-\d+-of-\d+)?\.safetensors$")
"""Weights of a pipeline's component in another precision."""
PICKLE_FORMATS = frozenset({"pt", "npcache"})
MANIFEST = ".moorage-manifest.json"
MAX_FILES = 20_000


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a source. `size` in bytes; checksums in lower-case hexadecimal where the source states them."""

    path: str
    size: int
    sha256: str = ""
    git_sha1: str = ""
    """SHA-1 of git's blob header and the content."""
    md5: str = ""
    crc32: str = ""
    etag: str = ""
    """Sent back as If-Match, so that a file cannot change half-way through."""

    @property
    def identity(self) -> str:
        """Two files of one source with the same identity have the same content; '' = unknown."""
        return self.etag or self.sha256 or self.git_sha1


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything a source has at one moment. `version` names exactly this content (a commit, a digest of the listing)."""

    version: str
    files: tuple[File, ...]
    task: str = ""
    """The source's own word for what the model is for."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """What the endpoint says about its model by name; everything not allowed is refused."""

    allow_pickle: bool = False
    trust_remote_code: bool = False
    load_format: str = "auto"
    whole: bool = False
    """Everything that the source has, whatever it is: for programs of the user's own, which know what they read."""

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Rules:
        """From `Model.wire()`. A load format given as an engine flag counts as well: it decides what the engine reads."""
        if {"command", "custom"} & model.get("image", {}).keys():
            return cls(allow_pickle=True, trust_remote_code=True, whole=True)
        llm = model.get("settings", {}).get("llm", {})
        chosen = llm.get("loadFormat") or _flag(model.get("args", ()), "load-format") or "auto"
        return cls(llm.get("allowPickle") is True, llm.get("trustRemoteCode") is True, chosen)


@dataclasses.dataclass(frozen=True)
class AdapterRules(Rules):
    """Of a LoRA adapter: two files, weights as safetensors in any case."""


def safe_path(name: str) -> str:
    """`name` when it is a plain relative path that stays below its folder. Raises SourceError UnsafeName."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode(errors="replace")) <= 255 for part in parts)
    printable = name.isprintable() and "\\" not in name
    if not plain or not printable or len(name) > 1024 or name == MANIFEST:
        raise SourceError(f"the source has a file name that cannot be used safely: {name[:200]!r}; rename it there", "UnsafeName")
    return name


def choose(files: Sequence[File], rules: Rules) -> tuple[File, ...]:
    """The files a replica needs: configuration, tokenizer, templates and one format of weights.

    Raises SourceError: UnsafeName, NoWeights, PickleRefused.
    """
    if len(files) > MAX_FILES:
        raise SourceError(f"the source has over {MAX_FILES} files, which is not one model: name the model's own folder", "NoWeights")
    paths = {safe_path(file.path) for file in files}
    _refuse_file_as_folder(paths)
    if isinstance(rules, AdapterRules):
        return _adapter(files)
    if rules.whole:
        return tuple(files)
    if not paths & CONFIGS:
        raise SourceError(f"there is no model here: none of {', '.join(sorted(CONFIGS))} at the top of the source", "NoWeights")
    kept = [file for file in files if not NOT_LOADED.fullmatch(file.path.split("/")[0])]
    weights = _weights(kept, rules)
    if not weights and rules.load_format != "dummy":
        raise SourceError(f"there are no weights that can be loaded: {_other_formats(files)}", "NoWeights")
    return (*(file for file in kept if _is_data(file.path, rules)), *weights)


def _adapter(files: Sequence[File]) -> tuple[File, ...]:
    known = {file.path: file for file in files}
    if lora.CONFIG not in known:
        raise SourceError(f"this is no LoRA adapter: there is no {lora.CONFIG} at the top of the source", "NotAnAdapter")
    if lora.WEIGHTS not in known:
        pickle = next((path for path in known if "/" not in path and is_pickle_name(path)), None)
        if pickle is not None:
            text = f"the adapter's weights are Python pickles ({pickle}), which can run code: save it as safetensors"
            raise SourceError(text, "PickleRefused")
        raise SourceError(f"the adapter has no {lora.WEIGHTS}", "NoWeights")
    return known[lora.CONFIG], known[lora.WEIGHTS]


def _weights(files: Sequence[File], rules: Rules) -> tuple[File, ...]:
    """Per folder safetensors where there are any, else pickles, which must be allowed."""
    if rules.load_format == "dummy":
        return ()
    loaded = _loaded_folders(files)
    folders: dict[str, list[File]] = {}
    for file in files:
        folders.setdefault(_folder(file.path), []).append(file)
    chosen: list[File] = []
    pipeline = any(file.path == "model_index.json" for file in files)
    for folder, members in folders.items():
        if pipeline and not folder:
            continue  # whole checkpoints for other programs; the components' folders have the same weights
        safe = [file for file in members if _suffix(file.path) == ".safetensors"]
        safe = _one_precision(safe) if pipeline else safe
        pickles = [file for file in members if is_pickle_name(file.path)] if folder in loaded else []
        wants_pickles = pickles and (not safe or rules.load_format in PICKLE_FORMATS)
        if wants_pickles and not rules.allow_pickle:
            raise pickle_refused(pickles[0].path)
        chosen += pickles if wants_pickles else safe
    return tuple(chosen)


def _one_precision(files: Sequence[File]) -> list[File]:
    """A component's weights without their variants (`model.fp16.safetensors`), unless there is nothing else."""
    plain = [file for file in files if not VARIANT.search(file.path)]
    return plain or list(files)


def pickle_refused(path: str) -> SourceError:
    """The refusal of weights that can run code when they are loaded."""
    return SourceError(
        f"the weights are Python pickles ({path}), which can run code when loaded: use a model with safetensors weights,"
        " or set model.settings.llm.allowPickle",
        "PickleRefused",
    )


def is_pickle_name(path: str) -> bool:
    """Whether a file of this name is loaded as a pickle of weights."""
    return _suffix(path) in PICKLES and not TRAINING_STATE.fullmatch(PurePosixPath(path).name)


def variant(version: str, files: Iterable[File]) -> str:
    """The name of a local copy: the version, and a digest of which files of it were chosen."""
    chosen = hashlib.sha256("\0".join(sorted(file.path for file in files)).encode()).hexdigest()
    return f"{version[:40]}-{chosen[:8]}"


def _is_data(path: str, rules: Rules) -> bool:
    name = PurePosixPath(path).name
    if _suffix(path) == ".py":
        return rules.trust_remote_code
    if _suffix(path) in PICKLES or _suffix(path) == ".safetensors" or name.startswith("."):
        return False
    return _suffix(path) in DATA or name.startswith("tokenizer.")


def _loaded_folders(files: Sequence[File]) -> set[str]:
    """Folders whose weights an engine reads: the top, sentence-transformers modules, a pipeline's components."""
    folders = {_folder(file.path) for file in files}
    pipeline = any(file.path == "model_index.json" for file in files)
    return {folder for folder in folders if not folder or MODULE.fullmatch(folder) or (pipeline and "/" not in folder)}


def _refuse_file_as_folder(paths: set[str]) -> None:
    for path in paths:
        for parent in list(PurePosixPath(path).parents)[:-1]:
            if str(parent) in paths:
                raise SourceError(f"the source has both a file {str(parent)!r} and files below it; rename one of them there", "UnsafeName")


def _other_formats(files: Sequence[File]) -> str:
    others = sorted({_suffix(file.path) for file in files} & {".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".npz"})
    return f"it has {', '.join(others)} files, but no safetensors" if others else "no safetensors files"


def _flag(args: Sequence[str], name: str) -> str | None:
    """The value of the last `--name value` or `--name=value`, in either spelling of the hyphen."""
    value = None
    for position, word in enumerate(args):
        flag, _, given = word.partition("=")
        if flag.replace("_", "-") == f"--{name}":
            value = given or (args[position + 1] if position + 1 < len(args) else None)
    return value


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
