"""Models of S3 and stores that speak it (MinIO, Ceph, OCI, ...): listing, ranged reads, its checksums and its errors."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore import UNSIGNED
from botocore import exceptions as boto_errors
from botocore.config import Config

from deployments.sources import addresses
from deployments.sources.errors import SourceChanged, SourceError
from deployments.sources.listing import MAX_FILES, File, Listing
from deployments.sources.source import CHUNK, Content

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

SINGLE_PART_ETAG = re.compile(r"[0-9a-f]{32}")

ALWAYS = frozenset({"Name", "KeyCount", "MaxKeys", "IsTruncated"})
"""What a store says of any listing. boto reads an answer that broke off before its first byte as a listing of nothing."""


class Bucket:
    """The objects below a prefix of a bucket, `s3://bucket/prefix`, with the credentials in `environment` (AWS_...).

    Without keys there it asks unsigned, which public buckets answer: a node's own role is not lent to endpoints.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self._address = address
        self.name, prefix = parse(address)
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client(environment)

    def list(self) -> Listing:
        """All objects below the prefix. The version is a digest of their names, sizes and ETags."""
        files: list[File] = []
        with self._translated():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self._prefix):
                if not ALWAYS.intersection(page):
                    raise self._unreachable("its answer broke off")
                for row in page.get("Contents", ()):
                    path = row["Key"].removeprefix(self._prefix)
                    if not row["Key"].endswith("/"):  # such keys only draw a folder in consoles
                        files.append(File(path, row["Size"], etag=row["ETag"].strip('"')))
                if len(files) > MAX_FILES:
                    break
        if not files:
            raise SourceError(f"there is nothing at {self._address}: check the prefix", "PathNotFound")
        self.describe(files[0])  # who may list need not be allowed to read, and a copy may be here already
        rows = sorted((file.path, file.size, file.etag) for file in files)
        return Listing(hashlib.sha256(json.dumps(rows).encode()).hexdigest(), tuple(files))

    def describe(self, file: File) -> File:
        """With the checksums of the whole object that the store has: SHA-256, CRC-32, and MD5 where the ETag is one."""
        with self._translated():
            head = self._client.head_object(Bucket=self.name, Key=self._prefix + file.path, ChecksumMode="ENABLED")
        if head["ETag"].strip('"') != file.etag:
            raise self._changed()
        return dataclasses.replace(file, sha256=_whole(head.get("ChecksumSHA256")), crc32=_whole(head.get("ChecksumCRC32")), md5=_md5(head))

    @contextlib.contextmanager
    def read(self, file: File, start: int, stop: int) -> Iterator[Content]:
        """By a ranged GET that the store refuses when the object is no longer the one listed."""
        with self._translated():
            answer = self._client.get_object(
                Bucket=self.name, Key=self._prefix + file.path, Range=f"bytes={start}-{stop - 1}", IfMatch=file.etag
            )
        with contextlib.closing(answer["Body"]) as body:
            yield Content(start if answer.get("ContentRange") else 0, self._chunks(body))

    def _chunks(self, body: StreamingBody) -> Iterator[bytes]:
        with self._translated():
            yield from body.iter_chunks(CHUNK)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """boto's errors as SourceError, without their text: it may have signed addresses in it."""
        try:
            yield
        except boto_errors.ClientError as error:
            raise self._refusal(error.response) from None
        except (boto_errors.ParamValidationError, boto_errors.InvalidRegionError) as error:
            raise SourceError(f"{self._address} cannot be asked for: {type(error).__name__}", "BucketNotFound") from None
        except (boto_errors.BotoCoreError, OSError) as error:
            raise self._unreachable(type(error).__name__) from None

    def _refusal(self, answer: Any) -> SourceError:
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return SourceError(f"there is no bucket {self.name}: check {self._address} and AWS_ENDPOINT_URL", "BucketNotFound")
        if code in ("PreconditionFailed", "InvalidRange", "NoSuchKey") or status in (404, 412, 416):
            return self._changed()
        if status in (401, 403) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
            return SourceError(
                f"the store refuses access to {self._address} ({code or status}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
                " and what they may read",
                "AccessDenied",
            )
        return self._unreachable(f"{code} (HTTP {status})")

    def _changed(self) -> SourceError:
        return SourceChanged(f"{self._address} changed during the download")

    def _unreachable(self, detail: str) -> SourceError:
        return SourceError(f"the store of {self._address} cannot be reached: {detail}", "SourceUnreachable", permanent=False)


def parse(address: str) -> tuple[str, str]:
    """Bucket and prefix (without slashes around it) of `s3://bucket/prefix`. Raises SourceError BucketNotFound, UnsafeName."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise SourceError(f"{address[:200]!r} names no bucket: write it as s3://bucket/prefix", "BucketNotFound")
    prefix = prefix.strip("/")
    if not prefix.isprintable() or any(part in (".", "..") for part in prefix.split("/")):
        raise SourceError(f"{address[:200]!r} has a prefix that cannot be used safely", "UnsafeName")
    return bucket, prefix


def endpoint_of(environment: Mapping[str, str]) -> str | None:
    """The address of the store where it is not Amazon's."""
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None


def _client(environment: Mapping[str, str]) -> S3Client:
    key, endpoint = environment.get("AWS_ACCESS_KEY_ID"), endpoint_of(environment)
    if endpoint:
        addresses.check(endpoint)
    config = Config(
        signature_version="s3v4" if key else UNSIGNED,
        connect_timeout=10,
        read_timeout=30,
        max_pool_connections=16,
        retries={"mode": "standard", "total_max_attempts": 1},  # the transfer tries again itself, and notices when it is cancelled
        s3={"addressing_style": "path" if endpoint else "auto"},
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # its stubs do not know it yet
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session(
            aws_access_key_id=key,
            aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=environment.get("AWS_SESSION_TOKEN") if key else None,
            region_name=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        ).client("s3", endpoint_url=endpoint, config=config)
    except (boto_errors.BotoCoreError, ValueError) as error:
        raise SourceError(
            f"the store's settings are not valid ({type(error).__name__}): check the AWS_ variables", "AccessDenied"
        ) from None


def _whole(checksum: str | None) -> str:
    """A checksum in base64 as hexadecimal; '' for none, or for one made of the checksums of parts."""
    return base64.b64decode(checksum).hex() if checksum and "-" not in checksum else ""


def _md5(head: HeadObjectOutputTypeDef) -> str:
    """The ETag of an object put in one piece and not encrypted by a key of the user's is its MD5."""
    etag = head["ETag"].strip('"')
    encrypted = head.get("SSECustomerAlgorithm") or head.get("ServerSideEncryption", "AES256") != "AES256"
    return etag if SINGLE_PART_ETAG.fullmatch(etag) and not encrypted else ""
