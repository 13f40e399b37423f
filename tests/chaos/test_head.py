"""The head node loses its control store, its power, or what lies on its disk. `moorage up` is what a service manager runs then."""

import os
import time

import pytest
from support.load import Load, bad
from support.platforms import until

NAME = "anchored"


@pytest.fixture(scope="module")
def anchored(platform):
    platform.create(NAME, echo={"tag": "kept", "tokensPerSecond": 100})
    yield platform
    platform.delete(NAME)


def load(platform, rate=10):
    body = {"model": NAME, "messages": [{"role": "user", "content": "one two"}], "max_tokens": 5}
    return Load(f"{platform.url}/endpoints/admin/{NAME}/v1/chat/completions", platform.token, rate=rate, body=body)


@pytest.mark.full
def test_without_its_control_store_the_platform_serves_on_and_up_replaces_it(anchored, record):
    """F8: Ray is started without `--block`, so that the data plane outlives the control store. `up` has the bar of F9."""
    edge = {pid for pid, line in anchored.processes().items() if "haproxy" in line.split(" ")[0]}
    load_time = anchored.status(NAME)["expectedSeconds"]
    with load(anchored) as requests:
        until(lambda: len(requests.answers) > 20, what="requests flow")
        anchored.kill("gcs_server")
        killed = time.monotonic()
        until(lambda: requests.since(killed + 90), 120, every=0.5, what="a minute and a half")
    failed = bad(requests.answers)
    served = min((answer.began for answer in requests.answers if not answer.good), default=killed + 90) - killed
    began = time.monotonic()
    anchored.up()
    until(lambda: anchored.chat(NAME).status_code == 200, what="an answer")
    recovered = time.monotonic() - began
    assert edge & set(anchored.processes()), "HAProxy went on"
    record("F8 time that requests are served without the control store", served, 60, at_most=False, unit="s", note=f"{failed[:2]}")
    record("F8 time from `moorage up` to an answer", recovered, 60 + load_time, unit="s", note=f"load time {load_time:g} s")


@pytest.mark.full
def test_with_a_ruined_session_folder_and_records_up_starts_from_nothing(anchored, record):
    """F10: Ray's control store is in memory here; what a crash can leave behind in files is ruined instead."""
    anchored.kill_everything()
    ruined = 0
    for folder in (anchored.home / "ray", anchored.home / "run", anchored.home / "edge"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.name not in ("secret",):
                path.write_bytes(os.urandom(64))
                ruined += 1
    began = time.monotonic()
    anchored.up()
    until(lambda: anchored.chat(NAME).status_code == 200, 90, what="an answer")
    record(
        "F10 time from `moorage up` to an answer after files were ruined", time.monotonic() - began, 120, unit="s", note=f"{ruined} files"
    )


@pytest.mark.full
def test_after_a_power_cut_endpoints_keys_and_states_come_back(new_platform, postgresql, record):
    """F9, on PostgreSQL"""
    with new_platform(database_url=postgresql) as platform:
        platform.create("keeper", echo={"tag": "kept"})
        load_time = platform.status("keeper")["expectedSeconds"]
        key = platform.manage("POST", "/keeper/keys", {"description": "kept"}).json()["key"]
        revoked = platform.manage("POST", "/keeper/keys", {"description": "revoked"}).json()
        platform.manage("DELETE", f"/keeper/keys/{revoked['id']}")
        platform.create("sleeper", scaling={"minReplica": 0, "maxReplica": 1})
        platform.manage("POST", "/sleeper/scale-to-zero")
        platform.create("stopped")
        platform.manage("POST", "/stopped/pause")
        token = platform.token
        before = {item["name"]: item["generation"] for item in platform.manage("GET", "").json()["items"]}

        assert not (platform.home / "moorage.db").exists()
        platform.kill_everything()
        began = time.monotonic()
        platform.up()
        platform.wait("keeper")
        until(lambda: platform.chat("keeper", key=key).status_code == 200, 20, what="the old key works")
        recovered = time.monotonic() - began

        assert platform.token == token
        assert {item["name"]: item["generation"] for item in platform.manage("GET", "").json()["items"]} == before
        assert platform.chat("keeper", key=key).json()["system_fingerprint"] == "kept"
        assert platform.chat("keeper", key=revoked["key"]).status_code == 401
        assert platform.status("stopped")["state"] == "paused"
        assert platform.status("sleeper")["state"] == "scaledToZero"
        assert platform.chat("sleeper").status_code == 200
    record("F9 time until everything is back after a power cut", recovered, 60 + load_time, unit="s", note=f"load time {load_time:g} s")
