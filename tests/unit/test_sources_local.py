"""Paths on the node, and what files contain: allowed folders, links, pickles in disguise, remote code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from deployments import sources
from deployments.sources import SourceError, inspection, local
from deployments.sources.listing import Rules

HEADER = b'{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + b"12345678"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An allowed folder with a model `llama`; beside it lies a model that is not allowed."""
    for name in ("models/llama", "secret"):
        write(tmp_path / name, {"config.json": b"{}", "model.safetensors": SAFETENSORS})
    return tmp_path / "models"


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def reason(path: Path | str, models: Path, **rules: Any) -> str:
    with pytest.raises(SourceError) as caught:
        local.open_path(str(path), [models], Rules(**rules))
    return caught.value.reason


async def test_model_in_an_allowed_folder_is_used_in_place(models: Path, tmp_path: Path) -> None:
    model = {"repository": str(models / "llama")}
    folder = await sources.fetch(
        model, cache=tmp_path / "cache", allowed=[models], environment={}, hub_endpoint=None, progress=lambda *_: None
    )
    assert folder == models / "llama" and not (tmp_path / "cache").exists()


def test_path_elsewhere_is_not_allowed_whether_it_exists_or_not(models: Path) -> None:
    for path in (models.parent / "secret", models.parent / "absent", models / "../secret", "/", "/\0"):
        assert reason(path, models) == "PathNotAllowed"


def test_links_that_lead_out_are_not_followed(models: Path) -> None:
    os.symlink(models.parent / "secret", models / "link")
    assert reason(models / "link", models) == "PathNotAllowed"
    os.symlink(models.parent / "secret/config.json", models / "llama/extra.json")
    assert reason(models / "llama", models) == "PathNotAllowed"


def test_links_that_stay_inside_are_followed(models: Path) -> None:
    (models / "llama/model.safetensors").rename(models / "blob")
    os.symlink("../blob", models / "llama/model.safetensors")
    os.symlink("llama", models / "alias")
    assert local.open_path(str(models / "alias"), [models], Rules()) == models / "llama"


def test_unfinished_copies_in_the_cache_cannot_be_named(models: Path) -> None:
    write(models / "hub/x/.partial/v/files", {"config.json": b"{}", "model.safetensors": SAFETENSORS})
    assert reason(models / "hub/x/.partial/v/files", models) == "PathNotAllowed"


def test_absent_folder_is_told(models: Path) -> None:
    assert reason(models / "absent", models) == "PathNotFound"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.safetensors": None}, "NoWeights"),
        ({"config.json": None}, "NoWeights"),
        ({"model.safetensors": None, "pytorch_model.bin": b"PK\x03\x04"}, "PickleRefused"),
        ({"model.safetensors": pickle.dumps([1])}, "PickleRefused"),
        ({"tokenizer.model": pickle.dumps([1])}, "PickleRefused"),
        ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "NoWeights"),
        ({"model.safetensors": (10**15).to_bytes(8, "little") + b"{}"}, "NoWeights"),
        ({"config.json": b'{"auto_map": {"AutoModel": "m.M"}}'}, "RemoteCodeRefused"),
        ({"modeling.py": b"import os"}, "RemoteCodeRefused"),
    ],
)
def test_folder_that_may_not_be_loaded_is_refused_with_its_reason(models: Path, files: dict[str, bytes | None], expected: str) -> None:
    for name, content in files.items():
        (models / "llama" / name).unlink(missing_ok=True) if content is None else write(models / "llama", {name: content})
    assert reason(models / "llama", models) == expected


def test_what_is_named_by_the_endpoint_is_allowed(models: Path) -> None:
    write(models / "llama", {"config.json": b'{"auto_map": {"AutoModel": "m.M"}}', "m.py": b"import os"})
    assert local.open_path(str(models / "llama"), [models], Rules(trust_remote_code=True))
    write(models / "old", {"config.json": b"{}", "pytorch_model.bin": b"PK\x03\x04"})
    assert local.open_path(str(models / "old"), [models], Rules(allow_pickle=True))


def test_length_of_a_safetensors_header_is_not_taken_for_a_pickle() -> None:
    header = HEADER.ljust(0x0480)  # its length begins with the bytes 80 04, as pickles do
    assert inspection.is_safetensors(len(header).to_bytes(8, "little") + header[:8], 2000)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_known_by_their_first_bytes(protocol: int) -> None:
    assert inspection.is_pickle(pickle.dumps({"a": 1}, protocol))


@pytest.mark.parametrize(
    ("content", "asks"),
    [
        (b'{"auto_map": {"AutoModel": "m.M"}}', True),
        (b'{"a": [{"b": {"\\u0061uto_map": {"AutoModel": "m.M"}}}]}', True),
        (b'{"auto_map": {"x": 1}, "auto_map": {}}', False),
        (b'{"text": "auto_map"}', False),
        (b'{"auto_map": ', False),
        (b"[" * 100_000 + b'"auto_map"', False),
    ],
)
def test_remote_code_is_found_wherever_a_parser_would_find_it(content: bytes, asks: bool) -> None:
    assert inspection.asks_for_code(content) is asks


def test_deep_json_neither_crashes_nor_hides_code() -> None:
    deep: Any = {"auto_map": {"a": "b"}}
    for _ in range(300):
        deep = [deep]
    assert inspection.asks_for_code(json.dumps(deep).encode())
