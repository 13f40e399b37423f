"""Pushing a model's folder to an object store (moto's server): resumable by file, verified, and readable by a replica's source."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from cluster.cli import pushing
from deployments import sources

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def store(s3_server: str, monkeypatch: Any) -> Any:
    """A client of the store; the environment is that of somebody who may write."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket="pushed")
    return client


@pytest.fixture
def folder(tmp_path: Path, model_files: Any, monkeypatch: Any) -> Path:
    """A model of which one file is uploaded in three parts."""
    monkeypatch.setattr(pushing, "PART", 5 * 1024**2)
    for name, content in model_files(weights=12_000_000).items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(content)
    return tmp_path / "made"


def push(folder: Path) -> tuple[str, list[tuple[str, bool]], int]:
    """(address, (file, there already), bytes told of)."""
    files, seen, told = pushing.files_of(folder), [], [0]
    place = pushing.place_of("admin", "chat", files)

    def progress(count: int) -> None:
        told[0] += count

    store = pushing.open_store("s3://pushed/models")
    address = pushing.push(store, place, files, lambda file, present: seen.append((file.path, present)), progress)
    return address, seen, told[0]


def test_a_folder_is_pushed_once_whole_and_can_be_fetched(store: Any, folder: Path, s3_server: str, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    address, seen, told = push(folder)
    assert address.startswith("s3://pushed/models/admin/chat/") and told == size
    assert seen[-1] == ("config.json", False) and not any(present for _, present in seen)
    model = {"repository": address, "env": {}}
    environment = {**KEYS, "AWS_ENDPOINT_URL": s3_server}
    fetched = asyncio.run(
        sources.fetch(model, cache=tmp_path / "c", allowed=(), environment=environment, hub_endpoint=None, progress=lambda *_: None)
    )
    for path in folder.rglob("*.safetensors"):
        assert (fetched / path.relative_to(folder)).read_bytes() == path.read_bytes()
    again = push(folder)
    assert again[0] == address and all(present for _, present in again[1]) and again[2] == size


def test_what_broke_off_goes_on_with_the_files_that_are_missing_or_wrong(store: Any, folder: Path) -> None:
    address, seen, _ = push(folder)
    prefix = address.removeprefix("s3://pushed/")
    store.delete_object(Bucket="pushed", Key=f"{prefix}/config.json")
    damaged = next(name for name, _ in seen if name.endswith(".safetensors"))
    store.put_object(Bucket="pushed", Key=f"{prefix}/{damaged}", Body=b"half")
    missing = [name for name, present in push(folder)[1] if not present]
    assert sorted(missing) == sorted([damaged, "config.json"])


def test_a_store_that_refuses_is_told_in_a_sentence(store: Any, folder: Path) -> None:
    files = pushing.files_of(folder)
    with pytest.raises(pushing.PushFailed, match="nowhere"):
        pushing.push(pushing.open_store("s3://nowhere/x"), "a/b/c", files, lambda file, present: None, lambda count: None)
