"""Models from the Hub: the stock client's listing and errors, our ranged download, against a Hub on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import sources

QUICK = sources.Patience(attempts=3, first_delay=0.01, longest_delay=0.02)
NAME = "tiny/llama"
CHILD = """
import asyncio, json, sys
from pathlib import Path
from deployments import sources
model, cache, endpoint = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
print(asyncio.run(sources.fetch(model, cache=cache, allowed=(), environment={}, hub_endpoint=endpoint, progress=lambda *_: None)))
"""


@pytest.fixture
def fetch(hub_server: Any, tmp_path: Path) -> Any:
    """`await fetch(revision=..., token=..., llm={...})` -> the folder. `fetch.progress` has what was reported."""

    async def call(repository: str = NAME, *, revision: str | None = None, token: str = "", llm: Any = None, cache: Any = None) -> Path:
        model = {"repository": repository, "revision": revision, "settings": {"llm": llm or {}}}
        environment = {"HF_TOKEN": token} if token else {}
        return await sources.fetch(
            model,
            cache=cache or tmp_path / "cache",
            allowed=(),
            environment=environment,
            hub_endpoint=hub_server.url,
            progress=lambda done, total: call.progress.append((done, total)),
            patience=QUICK,
        )

    call.progress = []
    return call


def start_child(hub: Any, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, json.dumps({"repository": NAME}), str(cache), hub.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.01)


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def no_copy(cache: Path) -> bool:
    return not [path for path in cache.rglob(".moorage-manifest.json") if ".partial" not in path.parts]


async def test_model_arrives_whole_with_a_manifest_and_without_other_formats(hub_server: Any, fetch: Any, model_files: Any) -> None:
    files = model_files() | {"README.md": b"#", "pytorch_model.bin": b"\x80\x02.", "modeling.py": b"x", "onnx/model.onnx": b"o"}
    hub_server.add(NAME, files)
    folder = await fetch()
    wanted = {"config.json", "tokenizer.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == wanted | {".moorage-manifest.json"}
    manifest = json.loads((folder / ".moorage-manifest.json").read_text())["files"]
    assert {row["path"]: row["sha256"] for row in manifest} == {name: hashlib.sha256(files[name]).hexdigest() for name in wanted}
    total = sum(len(files[name]) for name in wanted)
    assert fetch.progress[-1] == (total, total)
    assert [done for done, _ in fetch.progress] == sorted(done for done, _ in fetch.progress)


async def test_token_goes_to_the_hub_and_not_to_its_storage(hub_server: Any, fetch: Any, model_files: Any) -> None:
    hub_server.add(NAME, model_files(), private=True, tokens=("hf_secret",))
    await fetch(token="hf_secret")
    tokens = {(path.startswith("/cdn/"), token) for _, path, token in hub_server.seen}
    assert tokens == {(False, "hf_secret"), (True, "")}


async def test_login_of_the_node_is_not_lent_to_endpoints(
    hub_server: Any, fetch: Any, model_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_node")
    hub_server.add(NAME, model_files())
    await fetch()
    assert {token for _, _, token in hub_server.seen} == {""}


async def test_second_fetch_brings_no_byte_and_new_revision_only_what_changed(hub_server: Any, fetch: Any, model_files: Any) -> None:
    repository = hub_server.add(NAME, model_files())
    first = await fetch()
    sent = dict(hub_server.sent)
    assert await fetch() == first
    assert hub_server.sent == sent
    repository.put(model_files() | {"config.json": b'{"model_type": "llama", "changed": 1}'})
    second = await fetch()
    assert second != first and b"changed" in (second / "config.json").read_bytes()
    assert hub_server.sent["model.safetensors"] == sent["model.safetensors"]
    assert (first / "config.json").read_bytes() == model_files()["config.json"]


async def test_killed_download_resumes_where_it_was(hub_server: Any, fetch: Any, model_files: Any, tmp_path: Path) -> None:
    files = model_files(weights=12_000_000)
    size = len(files["model.safetensors"])
    hub_server.add(NAME, files)
    hub_server.faults.hold_after["model.safetensors"] = 8_000_000
    child = start_child(hub_server, tmp_path / "cache")
    wait_until(lambda: hub_server.held.is_set() and bytes_below(tmp_path / "cache") > 7 * 1024**2)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert no_copy(tmp_path / "cache")
    hub_server.sent.clear()
    hub_server.faults.release.set()
    folder = await fetch()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    to_the_dead = 2 * 65536  # what the server still wrote to the killed process's connection
    assert hub_server.sent["model.safetensors"] <= size - 7 * 1024**2 + to_the_dead
    assert "config.json" not in hub_server.sent
    assert fetch.progress[-1] == (bytes_below(folder) - (folder / ".moorage-manifest.json").stat().st_size,) * 2
    assert all(done <= total for done, total in fetch.progress)


async def test_replicas_of_one_node_download_once(hub_server: Any, fetch: Any, model_files: Any, tmp_path: Path) -> None:
    files = model_files(weights=6_000_000)
    hub_server.add(NAME, files)
    hub_server.faults.hold_after["model.safetensors"] = 3_000_000
    child = start_child(hub_server, tmp_path / "cache")
    wait_until(hub_server.held.is_set)
    waiters = [asyncio.ensure_future(fetch()) for _ in range(3)]
    wait_seen = asyncio.get_running_loop().time() + 10
    while not any(done > 2_000_000 for done, _ in fetch.progress):  # those who wait see the other's progress
        assert asyncio.get_running_loop().time() < wait_seen
        await asyncio.sleep(0.02)
    hub_server.faults.release.set()
    folders = set(await asyncio.gather(*waiters))
    output, errors = await asyncio.to_thread(child.communicate)
    assert folders == {Path(output.strip())}, errors
    assert hub_server.sent["model.safetensors"] == len(files["model.safetensors"])


async def test_cut_connections_are_resumed(hub_server: Any, fetch: Any, model_files: Any) -> None:
    files = model_files(weights=9_000_000)
    hub_server.add(NAME, files)
    hub_server.faults.cut_after["model.safetensors"] = [4_000_000, 100, 0]
    folder = await fetch()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


async def test_server_without_ranges_is_read_from_the_beginning(hub_server: Any, fetch: Any, model_files: Any) -> None:
    files = model_files(weights=5_000_000)
    hub_server.add(NAME, files)
    hub_server.faults.without_ranges = True
    hub_server.faults.cut_after["model.safetensors"] = [3_000_000]
    folder = await fetch()
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert fetch.progress[-1][0] == fetch.progress[-1][1]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
async def test_damaged_file_is_refused_and_never_served(hub_server: Any, fetch: Any, model_files: Any, tmp_path: Path, name: str) -> None:
    hub_server.add(NAME, model_files())
    hub_server.faults.damaged.add(name)
    with pytest.raises(sources.SourceError, match=name) as caught:
        await fetch()
    assert caught.value.reason == "ChecksumMismatch" and no_copy(tmp_path / "cache")
    hub_server.faults.damaged.clear()
    assert (await fetch()).is_dir()


@pytest.mark.parametrize(
    ("name", "token", "revision", "reason"),
    [
        ("tiny/gated", "", None, "GatedRepository"),
        ("tiny/gated", "hf_other", None, "GatedRepository"),
        ("tiny/private", "hf_other", None, "RepositoryNotFound"),
        ("tiny/absent", "", None, "RepositoryNotFound"),
        (NAME, "", "no-such-branch", "RevisionNotFound"),
        (NAME, "hf_invalid", None, "AccessDenied"),
        ("../../etc", "", None, "RepositoryNotFound"),
        ("a\0b/c", "", None, "RepositoryNotFound"),
        ("", "", None, "RepositoryNotFound"),
    ],
)
async def test_refusals_have_their_reason_and_are_permanent(
    hub_server: Any, fetch: Any, model_files: Any, name: str, token: str, revision: str | None, reason: str
) -> None:
    hub_server.add(NAME, model_files())
    hub_server.add("tiny/gated", model_files(), gated=True, tokens=("hf_mine",))
    hub_server.add("tiny/private", model_files(), private=True, tokens=("hf_mine",))
    if name == "tiny/gated":
        await fetch(name, token="hf_mine")  # a copy that is here already must not help those without access
    with pytest.raises(sources.SourceError) as caught:
        await fetch(name, token=token, revision=revision)
    assert (caught.value.reason, caught.value.permanent) == (reason, True)
    assert "hf_" not in str(caught.value)


async def test_unreachable_source_serves_the_last_copy_to_those_who_had_it(hub_server: Any, fetch: Any, model_files: Any) -> None:
    commit = hub_server.add(NAME, model_files(), private=True, tokens=("hf_mine",)).refs["main"]
    folder, pinned = await fetch(token="hf_mine"), await fetch(token="hf_mine", revision=commit)
    hub_server.faults.status = 503
    assert await fetch(token="hf_mine") == folder and await fetch(token="hf_mine", revision=commit) == pinned
    for other in ({"token": "hf_other"}, {"token": "hf_mine", "revision": "other"}):
        with pytest.raises(sources.SourceError) as caught:
            await fetch(**other)
        assert (caught.value.reason, caught.value.permanent) == ("SourceUnreachable", False)


async def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(sources.SourceError) as caught:
        await sources.fetch(
            {"repository": NAME},
            cache=tmp_path,
            allowed=(),
            environment={"MOORAGE_HF_ENDPOINT": "http://127.0.0.1:9"},
            hub_endpoint=None,
            progress=lambda *_: None,
            patience=QUICK,
        )
    assert (caught.value.reason, caught.value.permanent) == ("SourceUnreachable", False)


async def test_damaged_local_copy_is_brought_again(hub_server: Any, fetch: Any, model_files: Any) -> None:
    hub_server.add(NAME, model_files())
    folder = await fetch()
    (folder / "model.safetensors").unlink()
    again = await fetch()
    assert again == folder and (again / "model.safetensors").read_bytes() == model_files()["model.safetensors"]


async def test_pickles_are_refused_unless_allowed_by_name(hub_server: Any, fetch: Any, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"PK\x03\x04rest", "tokenizer.json": b"{}"}
    hub_server.add(NAME, files)
    with pytest.raises(sources.SourceError, match="allowPickle") as caught:
        await fetch()
    assert caught.value.reason == "PickleRefused" and "pytorch_model.bin" not in hub_server.sent
    folder = await fetch(llm={"allowPickle": True})
    assert (folder / "pytorch_model.bin").exists()


async def test_pickle_under_another_name_is_refused_by_its_content(hub_server: Any, fetch: Any, tmp_path: Path) -> None:
    hub_server.add(NAME, {"config.json": b"{}", "model.safetensors": b"\x80\x04\x95 a pickle"})
    with pytest.raises(sources.SourceError) as caught:
        await fetch()
    assert caught.value.reason == "PickleRefused" and no_copy(tmp_path / "cache")


async def test_remote_code_is_refused_before_the_weights_come(hub_server: Any, fetch: Any, model_files: Any) -> None:
    code = {"tokenizer_config.json": b'{"a": [{"\\u0061uto_map": {"AutoTokenizer": "evil.T"}}]}', "evil.py": b"import os"}
    hub_server.add(NAME, model_files() | code)
    with pytest.raises(sources.SourceError, match="trustRemoteCode") as caught:
        await fetch()
    assert caught.value.reason == "RemoteCodeRefused" and "model.safetensors" not in hub_server.sent
    folder = await fetch(llm={"trustRemoteCode": True})
    assert (folder / "evil.py").exists()


async def test_unsafe_names_are_refused(hub_server: Any, fetch: Any, model_files: Any, tmp_path: Path) -> None:
    for name in ("../evil.json", "/etc/evil.json", "a/../../evil.json", "a\0b.json", "a\\b.json"):
        hub_server.add(NAME, model_files() | {name: b"{}"})
        with pytest.raises(sources.SourceError) as caught:
            await fetch()
        assert caught.value.reason == "UnsafeName"
    assert no_copy(tmp_path / "cache") and not list(tmp_path.rglob("evil.json"))


async def test_cancelling_ends_the_work_and_keeps_what_came(hub_server: Any, fetch: Any, model_files: Any, tmp_path: Path) -> None:
    files = model_files(weights=8_000_000)
    hub_server.add(NAME, files)
    hub_server.faults.hold_after["model.safetensors"] = 6_000_000
    task = asyncio.ensure_future(fetch())
    await asyncio.to_thread(wait_until, lambda: hub_server.held.is_set() and bytes_below(tmp_path / "cache") > 5 * 1024**2)
    task.cancel()
    asyncio.get_running_loop().call_later(0.2, hub_server.faults.release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert no_copy(tmp_path / "cache")
    seen = len(fetch.progress)
    hub_server.sent.clear()
    assert (await fetch() / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert hub_server.sent["model.safetensors"] < 4_000_000 and len(fetch.progress) > seen


async def test_model_that_does_not_fit_is_refused_before_it_is_downloaded(
    hub_server: Any, fetch: Any, model_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(NAME, model_files())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 65 * 1024**2}))
    with pytest.raises(sources.SourceError, match="make room") as caught:
        await fetch()
    assert caught.value.reason == "DiskFull" and hub_server.sent == {}


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 4 MB that can grow: `small_disk.path`, `small_disk.grow()`."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    grow = ["mount", "-o", "remount,size=64m", str(mount)]
    yield SimpleNamespace(path=mount, grow=lambda: subprocess.run(grow, check=True))
    subprocess.run(["umount", "-l", str(mount)], check=True)


async def test_disk_that_runs_full_is_told_and_given_back(
    hub_server: Any, fetch: Any, model_files: Any, small_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.add(NAME, model_files(weights=8_000_000))
    monkeypatch.setattr("deployments.sources.transfer.RESERVE", -(10**12))  # as when another process fills the disk meanwhile
    with pytest.raises(sources.SourceError) as caught:
        await fetch(cache=small_disk.path)
    assert caught.value.reason == "DiskFull" and no_copy(small_disk.path) and bytes_below(small_disk.path) < 1000
    small_disk.grow()
    assert (await fetch(cache=small_disk.path)).is_dir()
