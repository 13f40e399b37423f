"""Models that cannot be had: the endpoint's state and events tell the reason, and nothing else is disturbed."""

import json
import subprocess

import pytest
from support.model_configs import LLAMA_3_8B
from support.platforms import running_platform, until


@pytest.fixture(scope="module")
def hub(load_server):
    with load_server("hub").HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def sourced(hub):
    """A platform whose Hub is the local one, with an endpoint that must not notice anything."""
    with running_platform(hf_endpoint=hub.url) as platform:
        platform.create("bystander")
        yield platform


def failed(platform, name, model, timeout=90):
    """Create an LLM endpoint that cannot work; returns its final status, after checking that all views agree."""
    platform.create(name, model={"image": {"vLLM": {}}, "task": "text-generation", **model}, wait=False)
    status = platform.wait(name, "failed", timeout)
    events = platform.manage("GET", f"/{name}/events").json()["items"]
    told = [event for event in events if event["kind"] == "failed"]
    assert told and all(event["level"] == "error" for event in told)
    assert (told[-1]["reason"], told[-1]["message"]) == (status["reason"], status["message"])
    answer = platform.chat(name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "failed")
    assert status["message"] in answer.json()["error"]["message"]
    assert platform.chat("bystander").status_code == 200
    for text in (status["message"], answer.text):
        assert "Traceback" not in text and str(platform.home) not in text
    return status


def test_a_repository_that_does_not_exist(sourced):
    status = failed(sourced, "no-repo", {"repository": "missing/repository"})
    assert status["reason"] == "RepositoryNotFound"
    sourced.delete("no-repo")


def test_a_model_is_looked_at_on_a_node_before_anything_starts(sourced, hub, model_files):
    hub.add("looked/at", model_files(weights=3_000_000) | {"config.json": json.dumps(LLAMA_3_8B).encode()}, task="text-generation")
    before = sum(hub.sent.values())
    body = {"model": {"repository": "looked/at", "image": {"vLLM": {}}}}
    plan = until(lambda: _with_fit(sourced.manage("POST", "?dryRun=true", body).json()), 180, what="a node has looked at the model")
    assert (plan["fit"]["model"]["architecture"], plan["fit"]["model"]["task"]) == ("LlamaForCausalLM", "text-generation")
    assert plan["fit"]["instance"]["instanceType"] == "local-cpu" and plan["cost"]["perHour"] == 0
    assert sum(hub.sent.values()) - before < 500_000, "no weights were brought"
    with sourced.client() as client:
        made = client.post("/manage/v2/models/admin", json={"name": "looked", "repository": "looked/at"}).json()
    assert made["revision"] == hub.repositories["looked/at"].refs["main"]
    named = sourced.manage("POST", "?dryRun=true", {"model": {"repository": "model://looked"}}).json()
    assert (named["endpoint"]["model"]["repository"], named["endpoint"]["model"]["task"]) == ("model://looked@1", "text-generation")
    away = sourced.manage("POST", "?dryRun=true", {"model": {"repository": "missing/repository"}}).json()
    assert away["fit"] is None and ("RepositoryNotFound" in away["warnings"][0] or "SourceUnreachable" in away["warnings"][0])


def _with_fit(plan):
    """A machine that is busy may take longer for a look than a plan waits."""
    return plan if plan["fit"] else None


def test_a_gated_repository_works_once_a_token_is_given(sourced, hub, model_files):
    hub.add("gated/model", model_files(), gated=True, tokens=("hf_the_right_token",))
    status = failed(sourced, "gated-repo", {"repository": "gated/model"})
    assert status["reason"] == "GatedRepository"
    # With the token the download succeeds, and the tiny made-up weights fail in the engine instead.
    answer = sourced.manage("PUT", "/gated-repo", {"model": {"secrets": {"HF_TOKEN": "hf_the_right_token"}}})
    assert "hf_the_right_token" not in answer.text
    seen = until(
        lambda: [
            event
            for event in sourced.manage("GET", "/gated-repo/events").json()["items"]
            if event["kind"] == "downloading" and event["data"].get("total") and event["data"]["bytes"] == event["data"]["total"]
        ],
        60,
        what="the download is complete",
    )
    assert seen[-1]["data"]["total"] > 2_000_000
    sourced.delete("gated-repo")


def test_an_integration_brings_a_private_model_and_nothing_shows_its_token(sourced, hub, model_files):
    hub.add("private/model", model_files(), private=True, tokens=("hf_of_the_integration",))
    with sourced.client() as client:
        body = {"name": "team-hub", "kind": "huggingface", "values": {"token": "hf_of_the_integration"}}
        assert client.post("/manage/v2/integrations/admin", json=body).status_code == 200
        sourced.create("integrated", model={"image": {"vLLM": {}}, "repository": "private/model", "integration": "team-hub"}, wait=False)
        until(lambda: hub.sent.get("model.safetensors") and _downloaded(sourced, "integrated"), 60, what="the download is complete")
        refused = client.delete("/manage/v2/integrations/admin/team-hub")
        assert refused.status_code == 409 and "admin/integrated" in refused.json()["error"]
        for path in ("/integrated", "/integrated/events", "/integrated/revisions", "/integrated/logs"):
            assert "hf_of_the_integration" not in sourced.manage("GET", path).text
        stored = b"".join(file.read_bytes() for file in sourced.home.glob("moorage.db*"))
        assert b"team-hub" in stored and b"hf_of_the_integration" not in stored
        sourced.delete("integrated")
        assert client.delete("/manage/v2/integrations/admin/team-hub").status_code == 200


def _downloaded(platform, name):
    events = platform.manage("GET", f"/{name}/events").json()["items"]
    loads = [event["data"] for event in events if event["kind"] == "downloading" and event["data"].get("total")]
    return any(data["bytes"] == data["total"] for data in loads)


def test_a_bucket_that_does_not_exist(sourced, s3_server):
    secrets = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": s3_server}
    status = failed(sourced, "no-bucket", {"repository": "s3://no-such-bucket/model", "secrets": secrets})
    assert status["reason"] == "BucketNotFound"
    sourced.delete("no-bucket")


def test_pickle_weights_are_refused_unless_named(sourced, hub):
    hub.add("old/pickle", {"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"PK\x03\x04" + b"x" * 1000})
    status = failed(sourced, "pickled", {"repository": "old/pickle"})
    assert status["reason"] == "PickleRefused"
    assert "allowPickle" in status["message"]
    sourced.delete("pickled")


def test_a_full_disk_fails_the_new_endpoint_alone_and_space_mends_it(sourced, hub, model_files):
    hub.add("large/model", model_files(weights=8_000_000))
    cache = sourced.home / "models"
    cache.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(cache)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        status = failed(sourced, "disk-full", {"repository": "large/model"})
        assert status["reason"] == "DiskFull"
        subprocess.run(["mount", "-o", "remount,size=1g", str(cache)], check=True, capture_output=True)
        assert sourced.manage("POST", "/disk-full/resume").status_code == 200
        until(
            lambda: sourced.status("disk-full")["phase"] in {"starting", "importing", "loading", "failed"} or "",
            60,
            what="past the download",
        )
        assert sourced.status("disk-full")["reason"] != "DiskFull"
    finally:
        sourced.delete("disk-full")
        until(lambda: not [line for line in sourced.processes().values() if "disk-full" in line], 60, what="its replica is gone")
        subprocess.run(["umount", "-l", str(cache)], check=True, capture_output=True)
