"""Logs of real replicas, followed through the edge: as they come, and no longer than the endpoint lives."""

import json
import threading

import pytest
from support.platforms import until


@pytest.fixture
def talking(platform):
    platform.create("talking")
    yield platform
    platform.delete("talking")


def test_followed_logs_come_as_they_are_written_and_end_with_the_endpoint(talking):
    seen, ended = [], threading.Event()

    def follow():
        with talking.client() as client, client.stream("GET", "/manage/v2/endpoint/admin/talking/logs?follow=true") as answer:
            for line in answer.iter_lines():
                if line.strip():
                    seen.append(json.loads(line))
        ended.set()

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    until(lambda: seen, 15, what="what was logged until now")
    before = len(seen)
    talking.manage("POST", "/talking/restart")
    until(lambda: len({line["replica"] for line in seen}) > 1, 60, what="lines of the new replica")
    assert len(seen) > before
    assert {"at", "level", "replica", "text"} == set(seen[-1])
    talking.manage("DELETE", "/talking")
    assert ended.wait(15)
    assert talking.manage("GET", "/talking/logs").status_code == 404


def test_many_followers_do_not_keep_the_api_from_answering(talking):
    with talking.client() as client:
        answers = [
            client.send(client.build_request("GET", "/manage/v2/endpoint/admin/talking/logs?follow=true"), stream=True) for _ in range(60)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert talking.get("talking")["name"] == "talking"
        for answer in answers:
            answer.close()
    assert talking.get("talking")["name"] == "talking"


@pytest.fixture
def guarded(platform):
    """An endpoint with a secret, and the texts that must not be found anywhere."""
    hidden = ["hush-0123456789-first", "hush-0123456789-second"]
    model = {"image": {"echo": {}}, "secrets": {"TOKEN": hidden[0]}}
    made = platform.create("guarded", model=model)
    yield platform, [*hidden, made["apiKey"]["key"]]
    platform.delete("guarded")


def test_keys_and_secrets_are_in_no_file_and_on_no_command_line(guarded):
    """K3, on a whole platform: database, logs of every process, HAProxy's files, Ray's."""
    platform, hidden = guarded
    hidden += [platform.manage("POST", "/guarded/keys", {"description": str(number)}).json()["key"] for number in range(5)]
    assert platform.chat("guarded", key=hidden[2])
    assert platform.manage("PUT", "/guarded", {"model": {"secrets": {"TOKEN": hidden[1]}}}).status_code == 200
    assert platform.manage("GET", f"/guarded/keys/{hidden[3]}").status_code == 200
    assert platform.manage("DELETE", f"/guarded/keys/{hidden[3]}").json()["status"] == "revoked"
    assert platform.manage("GET", "", headers={"authorization": f"Bearer {hidden[4]}"}).status_code == 403
    assert platform.manage("PUT", "/guarded", {"model": {"secrets": {"bad name": hidden[0]}}}).status_code == 400
    # HAProxy writes a slash of JSON with a backslash before it.
    until(lambda: b"endpoint/admin/guarded/keys" in everything(platform).replace(b"\\/", b"/"), 15, what="the access log")
    hidden.append(platform.token)
    kept = everything(platform)
    assert b"guarded" in kept
    assert [text for text in hidden if text.encode() in kept] == []
    lines = " ".join(platform.processes().values())
    assert "haproxy" in lines
    assert [text for text in hidden if text in lines] == []


def everything(platform):
    """All that the platform keeps in its folder, but the one file whose purpose is to hold a key."""
    files = [path for path in platform.home.rglob("*") if path.is_file() and path != platform.home / "credentials"]
    found = []
    for path in files:
        try:
            found.append(path.read_bytes())
        except FileNotFoundError:  # a working file that is gone already
            continue
    return b"\n".join(found)


def test_the_audit_log_of_a_platform_is_whole_and_has_the_callers_address_and_request_ids(guarded):
    platform, _ = guarded
    answer = platform.manage("PUT", "/guarded", {"description": "audited"})
    (row,) = platform.fetch("/manage/v2/audit?resource=admin/guarded&action=endpoint.update&limit=1").json()["items"]
    assert (row["source"], row["requestId"]) == ("127.0.0.1", answer.headers["x-request-id"])
    assert row["detail"]["changed"] == {"description": ["", "audited"]}
    assert "is whole" in platform.command("audit", "verify").stdout
    assert platform.fetch("/manage/v2/audit/verify").json()["intact"]
    first = json.loads(platform.command("audit", "ls", "--action", "platform-key.create", "--json").stdout)[-1]
    assert (first["actor"], first["source"]) == ("moorage up", "local")
