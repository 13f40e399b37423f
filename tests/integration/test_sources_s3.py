"""Models from an S3-compatible store (moto's server), with broken connections by a proxy before it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from deployments import sources
from deployments.sources import s3

QUICK = sources.Patience(attempts=3, first_delay=0.01, longest_delay=0.02)
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "s3cret-value", "AWS_REGION": "us-east-1"}
ADDRESS = "s3://models/team/llama"
CHILD = """
import asyncio, json, sys
from pathlib import Path
from deployments import sources
model, cache, environment = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
asyncio.run(sources.fetch(model, cache=cache, allowed=(), environment=environment, hub_endpoint=None, progress=lambda *_: None))
"""


@pytest.fixture
def store(s3_server: str) -> Any:
    """A client of the store, which has the bucket `models`."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="models")
    return client


def put(store: Any, files: dict[str, bytes], prefix: str = "team/llama/") -> None:
    for name, content in files.items():
        store.put_object(Bucket="models", Key=prefix + name, Body=content, ChecksumAlgorithm="SHA256")


@pytest.fixture
def fetch(s3_server: str, tmp_path: Path) -> Any:
    """`await fetch(address, endpoint=..., AWS_...=...)` -> the folder. `fetch.progress` has what was reported."""

    async def call(address: str = ADDRESS, *, endpoint: str = s3_server, revision: str | None = None, **environment: str) -> Path:
        return await sources.fetch(
            {"repository": address, "revision": revision},
            cache=tmp_path / "cache",
            allowed=(),
            environment=KEYS | {"AWS_ENDPOINT_URL": endpoint} | environment,
            hub_endpoint=None,
            progress=lambda done, total: call.progress.append((done, total)),
            patience=QUICK,
        )

    call.progress = []
    return call


def start_child(cache: Path, environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, json.dumps({"repository": ADDRESS}), str(cache), environment])


def complete_copies(cache: Path) -> list[Path]:
    return [path.parent for path in cache.rglob(".moorage-manifest.json") if ".partial" not in path.parts]


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


async def test_model_arrives_whole_from_its_prefix_alone(store: Any, fetch: Any, model_files: Any) -> None:
    files = model_files()
    put(store, files | {"": b"", "sub/": b""})
    put(store, {"config.json": b"{}", "model.safetensors": b"another"}, prefix="team/llama-2/")
    folder = await fetch()
    assert {path.name for path in folder.iterdir()} == {*files, ".moorage-manifest.json"}
    assert all((folder / name).read_bytes() == content for name, content in files.items())
    total = sum(map(len, files.values()))
    assert fetch.progress[-1] == (total, total)


async def test_new_content_under_the_same_prefix_is_a_new_copy(store: Any, fetch: Any, model_files: Any) -> None:
    put(store, model_files())
    first = await fetch()
    assert await fetch() == first
    put(store, model_files(seed=2))
    second = await fetch()
    assert second != first
    assert (second / "model.safetensors").read_bytes() == model_files(seed=2)["model.safetensors"]
    assert (first / "model.safetensors").read_bytes() == model_files()["model.safetensors"]


async def test_killed_download_resumes_where_it_was(
    store: Any, s3_server: str, fetch: Any, model_files: Any, fault_proxy: Any, tmp_path: Path
) -> None:
    files = model_files(weights=12_000_000)
    put(store, files)
    proxy = fault_proxy(port_of(s3_server))
    proxy.hold_after = 9_000_000
    child = start_child(tmp_path / "cache", json.dumps(KEYS | {"AWS_ENDPOINT_URL": proxy.url}))
    deadline = time.monotonic() + 30
    while not (proxy.held.is_set() and sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 7 * 1024**2):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not complete_copies(tmp_path / "cache")
    proxy.hold_after, proxy.sent = None, 0
    proxy.release.set()
    folder = await fetch(endpoint=proxy.url)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert proxy.sent < 5_500_000


async def test_cut_answers_are_resumed(store: Any, s3_server: str, fetch: Any, model_files: Any, fault_proxy: Any) -> None:
    files = model_files(weights=9_000_000)
    put(store, files)
    proxy = fault_proxy(port_of(s3_server))
    proxy.cuts = [4_000_000, 6_000_000]
    folder = await fetch(endpoint=proxy.url)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert proxy.cuts == [] and proxy.sent < 12_000_000


async def test_a_listing_that_breaks_off_is_no_empty_listing(fetch: Any) -> None:
    with serving(Breaking) as url, pytest.raises(sources.SourceError) as caught:
        await fetch(endpoint=url)
    assert (caught.value.reason, caught.value.permanent) == ("SourceUnreachable", False)


async def test_store_that_is_down_serves_the_local_copy(store: Any, s3_server: str, fetch: Any, model_files: Any, fault_proxy: Any) -> None:
    put(store, model_files())
    proxy = fault_proxy(port_of(s3_server))
    folder = await fetch(endpoint=proxy.url)
    proxy.__exit__()
    assert await fetch(endpoint=proxy.url) == folder
    with pytest.raises(sources.SourceError) as caught:
        await fetch(endpoint=proxy.url, AWS_SECRET_ACCESS_KEY="another's")
    assert (caught.value.reason, caught.value.permanent) == ("SourceUnreachable", False)


@pytest.mark.parametrize(("algorithm", "checksum"), [("SHA256", "sha256"), ("CRC32", "crc32"), ("", "md5")])
async def test_content_that_is_not_what_the_store_states_is_refused(
    store: Any, fetch: Any, model_files: Any, tmp_path: Path, algorithm: str, checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    for name, content in model_files().items():
        store.put_object(Bucket="models", Key=f"team/llama/{name}", Body=content, **options)
    describe = s3.Bucket.describe

    def misstate(self: Any, file: Any) -> Any:
        stated = getattr(describe(self, file), checksum)
        assert stated, "the store states no such checksum: this test would show nothing"
        return dataclasses.replace(file, **{checksum: stated[::-1]})

    monkeypatch.setattr(s3.Bucket, "describe", misstate)
    with pytest.raises(sources.SourceError, match=checksum) as caught:
        await fetch()
    assert caught.value.reason == "ChecksumMismatch" and not complete_copies(tmp_path / "cache")
    monkeypatch.setattr(s3.Bucket, "describe", describe)
    assert (await fetch()).is_dir()


@pytest.mark.parametrize(
    ("address", "revision", "reason"),
    [
        ("s3://absent/llama", None, "BucketNotFound"),
        ("s3://models/absent", None, "PathNotFound"),
        ("s3://", None, "BucketNotFound"),
        ("s3://models/a/../../secret", None, "UnsafeName"),
        (ADDRESS, "v2", "RevisionNotFound"),
    ],
)
async def test_wrong_addresses_are_told_apart(
    store: Any, fetch: Any, model_files: Any, address: str, revision: str | None, reason: str
) -> None:
    put(store, model_files())
    with pytest.raises(sources.SourceError) as caught:
        await fetch(address, revision=revision)
    assert (caught.value.reason, caught.value.permanent) == (reason, True)


@pytest.mark.parametrize("key", ["../evil.json", "a/../../evil.json", "/evil.json", "a//b.json", "a\\b.json"])
async def test_unsafe_keys_are_refused(store: Any, fetch: Any, model_files: Any, tmp_path: Path, key: str) -> None:
    put(store, model_files())
    store.put_object(Bucket="models", Key="team/llama/" + key, Body=b"{}")
    with pytest.raises(sources.SourceError) as caught:
        await fetch()
    assert caught.value.reason == "UnsafeName" and not list(tmp_path.rglob("evil.json"))


async def test_credentials_of_the_node_are_not_lent_to_endpoints(denying: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-node")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-node")
    for environment, signed in (({}, False), (KEYS, True)):
        denying.authorizations.clear()
        with pytest.raises(sources.SourceError):
            await sources.fetch(
                {"repository": ADDRESS},
                cache=tmp_path,
                allowed=(),
                environment=environment | {"AWS_ENDPOINT_URL": denying.url},
                hub_endpoint=None,
                progress=lambda *_: None,
                patience=QUICK,
            )
        assert [("Credential=testing/" in (header or "")) for header in denying.authorizations] == [signed]
        assert "of-the-node" not in str(denying.authorizations)


async def test_denied_access_is_told_without_the_secret(fetch: Any, denying: Any) -> None:
    with pytest.raises(sources.SourceError) as caught:
        await fetch(endpoint=denying.url)
    assert (caught.value.reason, caught.value.permanent) == ("AccessDenied", True)
    assert "s3cret" not in str(caught.value)


async def test_object_that_changes_during_the_download_is_never_mixed(
    store: Any, s3_server: str, fetch: Any, model_files: Any, fault_proxy: Any
) -> None:
    put(store, model_files(weights=9_000_000))
    proxy = fault_proxy(port_of(s3_server))
    proxy.hold_after, proxy.cuts = 4_000_000, [5_000_000]
    task = asyncio.ensure_future(fetch(endpoint=proxy.url))
    assert await asyncio.to_thread(proxy.held.wait, 20)
    put(store, model_files(weights=9_000_000, seed=2))
    proxy.release.set()
    folder = await task
    assert (folder / "model.safetensors").read_bytes() == model_files(weights=9_000_000, seed=2)["model.safetensors"]


class Denying(BaseHTTPRequestHandler):
    """A store that denies everything, as S3 does."""

    authorizations: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.authorizations.append(self.headers.get("Authorization"))
        body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Denied for s3cret-value</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Breaking(Denying):
    """A store whose listing breaks off before its first byte."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.close_connection = True


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def denying() -> Any:
    Denying.authorizations.clear()
    with serving(Denying) as url:
        yield SimpleNamespace(url=url, authorizations=Denying.authorizations)
