"""Model sources that lead where they may not, and models that would run code or eat a node: refused with the reason, in bounded time."""

from __future__ import annotations

import json
import os
import pickle
import time
import tracemalloc
from pathlib import Path

import pytest
from support.api import Api
from support.canary import Canary

from deployments.sources import local, s3
from deployments.sources.errors import SourceError
from deployments.sources.listing import Rules

HOSTS = ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]", "[::]", "127.0.0.1."]
HOSTS += ["[::ffff:127.0.0.1]", "169.254.169.254", "0xa9fea9fe", "2852039166", "[::ffff:169.254.169.254]", "metadata.google.internal"]
HOSTS += ["huggingface.co@127.0.0.1", "127.0.0.1#@huggingface.co", "huggingface.co\\@127.0.0.1"]
SCHEMES = (
    "http://",
    "https://",
    "HTTP://",
    "//",
    "file://",
    "gopher://",
    "ftp://",
    "hf://",
    "s3:http://",
    "model://",
    "oci://",
    "git+http://",
    "",
)
METADATA = [
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "169.254.0.1",
]
METADATA += [
    "[::ffff:a9fe:a9fe]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[2002:a9fe:a9fe::]",
    "100.100.100.200",
    "169.254.169.254.",
    "１６９.254.169.254",
]


def test_no_repository_is_an_address(tmp_path, record):
    """H7: refused when it is written, with the field to blame; nobody is asked, and nothing is made."""
    api, passed, asked = Api(tmp_path), [], 0
    with Canary() as canary:
        for scheme in SCHEMES:
            for host in HOSTS:
                repository = f"{scheme}{host}:{canary.port}/model"
                answer = api.call("POST", "", {"name": "never-made", "model": {"repository": repository, "image": {"vLLM": {}}}})
                asked += 1
                if answer.status_code != 400 or not answer.json().get("param", "").startswith("model"):
                    passed.append((repository, answer.status_code))
        connections = canary.connections
    record("H7 addresses taken for a repository", len(passed), 0, unit="addresses", note=f"{passed[:5]} of {asked}")
    record("H7 connections to a canary by repositories", connections, 0, unit="connections")
    assert api.call("GET", "").json()["items"] == []


def test_no_setting_of_a_store_leads_to_the_metadata_service(record):
    """H7: whichever way its address is written. Other private addresses may hold a store, on one's own machines they mostly do."""
    passed = []
    for host in METADATA:
        for url in (f"http://{host}/", f"https://{host}:8443/x", f"http://a:b@{host}/"):
            try:
                s3.Bucket("s3://models/llama", {"AWS_ENDPOINT_URL": url})
                passed.append(url)
            except SourceError:
                continue
    for url in (
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://",
        "http://x\\@169.254.169.254/",
        "http://good.example@169.254.169.254",
    ):
        try:
            s3.Bucket("s3://models/llama", {"AWS_ENDPOINT_URL_S3": url})
            passed.append(url)
        except SourceError:
            continue
    record("H7 store addresses that lead to the metadata service", len(passed), 0, unit="addresses", note=str(passed))
    assert s3.Bucket("s3://models/llama", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})


HEADER = b'{"__metadata__":{"format":"pt"}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER


class Exploit:
    def __reduce__(self):
        return os.system, ("touch /tmp/moorage-was-here",)


MODELS = {
    "a pickle": ({"model.safetensors": None, "pytorch_model.bin": pickle.dumps(Exploit())}, "PickleRefused"),
    "a pickle under another name": ({"model.safetensors": pickle.dumps(Exploit())}, "PickleRefused"),
    "a pickle as the tokenizer": ({"tokenizer.model": pickle.dumps(Exploit())}, "PickleRefused"),
    "a torch archive": ({"model.safetensors": b"PK\x03\x04" + b"\0" * 100}, "PickleRefused"),
    "code": ({"modeling_x.py": b"import os"}, "RemoteCodeRefused"),
    "code in a folder": ({"sub/x.py": b"import os"}, "RemoteCodeRefused"),
    "auto_map": ({"config.json": b'{"auto_map": {"AutoModel": "x.X"}}'}, "RemoteCodeRefused"),
    "auto_map, escaped": ({"config.json": b'{"\\u0061uto_map": {"AutoModel": "x.X"}}'}, "RemoteCodeRefused"),
    "auto_map of the tokenizer": ({"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["x.X", null]}}'}, "RemoteCodeRefused"),
    "auto_map of a processor, deep": ({"preprocessor_config.json": b'{"a": [{"auto_map": {"x": "x.X"}}]}'}, "RemoteCodeRefused"),
    "a header of 8 EiB": ({"model.safetensors": b"\xff" * 7 + b"\x7f" + b"{}"}, "NoWeights"),
    "a header longer than its file": ({"model.safetensors": (2**30).to_bytes(8, "little") + b"{}"}, "NoWeights"),
    "a header over all bounds": ({"model.safetensors": (100_000_001).to_bytes(8, "little") + b"{"}, "NoWeights"),
    "no header": ({"model.safetensors": b""}, "NoWeights"),
    "a pointer instead of weights": ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "NoWeights"),
    "no configuration": ({"config.json": None}, "NoWeights"),
}


def laid_out(folder: Path, files: dict[str, bytes | None]) -> Path:
    for name, content in {"config.json": b"{}", "model.safetensors": WEIGHTS, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def reason(path: Path, allowed: Path) -> str:
    try:
        local.open_path(str(path), [allowed], Rules())
    except SourceError as refusal:
        return refusal.reason
    return "loaded"


def test_models_that_would_run_code_or_are_none_are_refused_with_their_reason(tmp_path, record):
    """H8: and none of their code has run."""
    wrong = []
    assert reason(laid_out(tmp_path / "good", {}), tmp_path) == "loaded"
    for number, (name, (files, expected)) in enumerate(MODELS.items()):
        found = reason(laid_out(tmp_path / f"m{number}", files), tmp_path)
        if found != expected:
            wrong.append((name, found))
    record("H8 models refused otherwise than with their reason", len(wrong), 0, unit="models", note=f"{wrong} of {len(MODELS)}")
    assert not Path("/tmp/moorage-was-here").exists()


def test_links_and_dots_lead_nowhere(tmp_path, record):
    """H8: out of the allowed folder, into the cache's unfinished copies, to a file that never ends, round in a circle."""
    allowed = tmp_path / "allowed"
    outside = laid_out(tmp_path / "outside", {})
    folder = laid_out(allowed / "m", {})
    (allowed / "link").symlink_to(outside)
    (laid_out(allowed / "file-link", {"model.safetensors": None}) / "model.safetensors").symlink_to(outside / "model.safetensors")
    (laid_out(allowed / "passwd", {}) / "tokenizer.json").symlink_to("/etc/passwd")
    (laid_out(allowed / "endless", {}) / "tokenizer.json").symlink_to("/dev/zero")
    laid_out(allowed / ".part" / "m", {})
    (allowed / "circle").symlink_to(allowed / "circle")
    tricks = [outside, allowed / "link", allowed / "file-link", allowed / "passwd", allowed / "endless", allowed / ".part" / "m"]
    tricks += [allowed / "circle", allowed / ".." / "outside", folder / ".." / ".." / "outside", Path("/"), Path("/proc/self/root/etc")]
    led = [str(path) for path in tricks if reason(path, allowed) not in ("PathNotAllowed", "PathNotFound")]
    record("H8 links and dots that led out", len(led), 0, unit="paths", note=str(led))


@pytest.mark.full
def test_a_folder_of_too_many_entries_and_a_huge_configuration_are_bounded(tmp_path, record):
    """H8: refused at the bound on files, not at their end; a configuration of 50 MB costs a moment."""
    many = laid_out(tmp_path / "many", {})
    for number in range(11):
        (many / f"d{number}").mkdir()
        for entry in range(2000):
            os.close(os.open(many / f"d{number}" / f"{entry}.json", os.O_CREAT | os.O_WRONLY))
    began = time.monotonic()
    assert reason(many, tmp_path) == "NoWeights"
    record("H8 time to refuse a folder of over 20,000 files", time.monotonic() - began, 10, unit="s")
    config = json.dumps({"a": ["auto_map" * 10] * 600_000}).encode()
    huge = laid_out(tmp_path / "huge", {"config.json": config})
    tracemalloc.start()
    began = time.monotonic()
    assert reason(huge, tmp_path) in ("loaded", "NoWeights")
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    record("H8 time to look through a configuration of 50 MB", seconds, 20, unit="s", note=f"peak {peak:.0f} MiB")
