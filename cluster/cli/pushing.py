"""A model's folder into the store of models: an object store or a shared folder. Resumable by file, verified by size and digest.

The place is named by the content, so that the same folder pushed again brings only what is missing, and no version changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as boto_errors
from botocore.config import Config

from cluster import errors

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART = 64 * 1024**2
"""Bytes of one part of an upload; the store's ETag is made of the parts, so it must not change."""
CHUNK = 1024**2
Progress = Callable[[int], None]
"""Told of bytes that are there now."""


class PushFailed(errors.MoorageError):
    """The model could not be pushed."""

    code = "push_failed"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the folder. `etag` is what an object store answers for it when it is uploaded in parts of PART bytes."""

    path: str
    source: Path
    size: int
    etag: str


class ModelStore(Protocol):
    """Where models are kept."""

    def address(self, place: str) -> str:
        """What `model.repository` says for this place."""

    def has(self, place: str, file: File) -> bool:
        """Whether the file is there, whole and equal."""

    def put(self, place: str, file: File, progress: Progress) -> None:
        """Bring it. Raises PushFailed when it did not arrive as it is here."""


def files_of(folder: Path, progress: Progress = lambda count: None) -> list[File]:  # noqa: ARG005
    """The files to push, read once for their digests. Hidden files stay. Raises PushFailed for a folder that is no model."""
    if not folder.is_dir():
        raise PushFailed(f"There is no folder {folder}.")
    found: list[File] = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(base, name)
            if not name.startswith(".") and path.is_file():
                found.append(File(path.relative_to(folder).as_posix(), path, path.stat().st_size, _etag(path, progress)))
    if not any(file.path in ("config.json", "params.json", "model_index.json") for file in found):
        raise PushFailed(f"{folder} is no model: it has no config.json, params.json or model_index.json at its top.")
    return found


def place_of(namespace: str, name: str, files: list[File]) -> str:
    """`<namespace>/<name>/<digest of the content>`."""
    rows = sorted((file.path, file.size, file.etag) for file in files)
    return f"{namespace}/{name}/{hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}"


def push(store: ModelStore, place: str, files: list[File], began: Callable[[File, bool], None], progress: Progress) -> str:
    """Bring what is missing; the configuration last, so that a place that has it is whole. Returns the model's address.

    `began(file, present)` is called before each file.
    """
    for file in sorted(files, key=lambda file: (file.path == "config.json", file.path)):
        present = store.has(place, file)
        began(file, present)
        if present:
            progress(file.size)
        else:
            store.put(place, file, progress)
    return store.address(place)


def open_store(address: str) -> ModelStore:
    """The store that MOORAGE_MODEL_STORE names. Raises InvalidRequest."""
    if address.startswith("s3://"):
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if bucket:
            return BucketStore(bucket, prefix.strip("/"))
    if address.startswith("/"):
        return FolderStore(Path(address))
    raise errors.InvalidRequest("MOORAGE_MODEL_STORE says where models are pushed to: s3://bucket/prefix, or an absolute shared folder.")


class BucketStore:
    """An object store, with the caller's own credentials (AWS_... or what boto3 finds)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(s3={"addressing_style": "path" if own else "auto"}, request_checksum_calculation="when_required")
        with _translated(bucket):
            self._client: S3Client = boto3.client("s3", config=config)
        self._transfer = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)

    def address(self, place: str) -> str:
        """s3://bucket/prefix/place."""
        return f"s3://{self._bucket}/{self._prefix}{place}"

    def has(self, place: str, file: File) -> bool:
        """By size and ETag; by size alone where the store's own encryption makes the ETag another."""
        try:
            with _translated(self._bucket):
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(place, file))
        except _Missing:
            return False
        encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or head.get("SSECustomerAlgorithm")
        return head["ContentLength"] == file.size and (bool(encrypted) or head["ETag"].strip('"') == file.etag)

    def put(self, place: str, file: File, progress: Progress) -> None:
        """In parts, several at once."""
        with _translated(self._bucket):
            self._client.upload_file(str(file.source), self._bucket, self._key(place, file), Callback=progress, Config=self._transfer)
        if not self.has(place, file):
            raise PushFailed(f"{file.path} did not arrive in {self._bucket} as it is here: did it change meanwhile? Push again.")

    def _key(self, place: str, file: File) -> str:
        return f"{self._prefix}{place}/{file.path}"


class FolderStore:
    """A folder that every node can read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def address(self, place: str) -> str:
        """The absolute path."""
        return str(self._root / place)

    def has(self, place: str, file: File) -> bool:
        """By size and digest."""
        target = self._root / place / file.path
        try:
            return target.stat().st_size == file.size and _etag(target, lambda count: None) == file.etag  # noqa: ARG005
        except FileNotFoundError:
            return False

    def put(self, place: str, file: File, progress: Progress) -> None:
        """Under another name first, so that a copy that broke off is never taken for the file."""
        target = self._root / place / file.path
        partial = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.source, partial)
            partial.replace(target)
        except OSError as exc:
            raise PushFailed(f"{target} cannot be written: {exc.strerror}.") from exc
        if not self.has(place, file):
            raise PushFailed(f"{file.path} did not arrive in {self._root} as it is here: did it change meanwhile? Push again.")
        progress(file.size)


class _Missing(Exception):
    """There is no such object."""


@contextlib.contextmanager
def _translated(bucket: str) -> Iterator[None]:
    try:
        yield
    except boto_errors.ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey", "NotFound"):
            raise _Missing from exc
        raise PushFailed(f"The store refuses the bucket {bucket} ({code}): check AWS_ACCESS_KEY_ID and what it may write.") from exc
    except (boto_errors.BotoCoreError, boto3.exceptions.Boto3Error, ValueError) as exc:
        raise PushFailed(f"The store of the bucket {bucket} cannot be used ({type(exc).__name__}): check the AWS_ variables.") from exc


def _etag(path: Path, progress: Progress) -> str:
    """MD5 of the content, or of the MD5s of its parts and their number: how S3 and stores like it make ETags."""
    parts: list[bytes] = []
    with path.open("rb") as content:
        while True:
            part, left = hashlib.md5(usedforsecurity=False), PART
            while left and (chunk := content.read(min(CHUNK, left))):
                part.update(chunk)
                left -= len(chunk)
                progress(len(chunk))
            if left < PART or not parts:
                parts.append(part.digest())
            if left:
                break
    if path.stat().st_size < PART:
        return parts[0].hex()
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
