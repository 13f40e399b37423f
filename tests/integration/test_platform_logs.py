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


def test_one_id_finds_the_edges_line_the_replicas_and_the_engines(talking):
    answer = talking.chat("talking", "hello", max_tokens=2)
    identity = answer.headers["x-request-id"]

    def found():
        told = talking.manage("GET", f"/talking/requests/{identity}")
        return told.json() if told.status_code == 200 and told.json()["logs"] else None

    whole = until(found, 15, what="the request with its replica's line")
    assert (whole["status"], whole["outcome"], whole["edge"]["id"]) == (200, "finished", identity)
    assert (whole["revision"], whole["endpoint"]) == (talking.status("talking")["revision"], "admin/talking")
    [line] = [line for line in whole["logs"] if "request" in line["text"]]
    assert (line["level"], line["replica"]) == ("debug", whole["replica"])
    assert f"{identity} POST /v1/chat/completions 200 finished" in line["text"]
    refused = talking.chat("talking", key="moor_e_wrong", max_tokens=1)
    until(lambda: listed(talking, f"id={refused.headers['x-request-id']}"), 15, what="the refused request")
    assert [one["status"] for one in listed(talking, "status=401")] == [401]
    assert identity in [one["id"] for one in talking.fetch("/manage/v2/requests?limit=200").json()["items"]]
    assert identity in talking.command("requests", "admin/talking").stdout


def test_prompts_are_kept_as_soon_as_the_endpoint_wants_it_and_no_longer_without_a_restart(talking):
    before = talking.get("talking")["status"]["revision"], until(lambda: replicas(talking), 15, what="its first lines")
    silent = talking.chat("talking", "nothing of this is kept", max_tokens=2).headers["x-request-id"]
    talking.manage("PUT", "/talking", {"requestLog": {"prompts": True, "answers": True, "redact": ["email"]}})

    asked = []

    def kept():
        asked.append(talking.chat("talking", "I am bob@example.com", max_tokens=2).headers["x-request-id"])
        return next((one for one in asked if talking.manage("GET", f"/talking/requests/{one}/prompt").status_code == 200), None)

    identity = until(kept, 30, every=0.3, what="a prompt is kept")
    found = talking.manage("GET", f"/talking/requests/{identity}/prompt").json()
    assert json.loads(found["prompt"])["messages"][0]["content"] == "I am [email]"
    assert found["answer"]
    assert talking.manage("GET", f"/talking/requests/{silent}/prompt").status_code == 404
    assert (talking.get("talking")["status"]["revision"], replicas(talking)) == before
    logs = talking.fetch("/manage/v2/endpoint/admin/talking/logs?tail=1000").text
    assert "bob@example.com" not in logs
    assert "I am" not in logs
    talking.manage("DELETE", "/talking/prompts")
    assert talking.manage("GET", f"/talking/requests/{identity}/prompt").status_code == 404


def test_followed_events_come_as_they_happen(talking):
    seen = []

    def follow():
        with talking.client() as client, client.stream("GET", "/manage/v2/endpoint/admin/talking/events?follow=true") as answer:
            seen.extend(json.loads(line) for line in answer.iter_lines() if line.strip())

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    talking.manage("POST", "/talking/pause")
    until(lambda: "pause" in [event["kind"] for event in seen], 15, what="the event of the pause")
    talking.manage("DELETE", "/talking")
    reader.join(30)
    assert not reader.is_alive()


def listed(platform, query):
    return platform.manage("GET", f"/talking/requests?{query}").json()["items"]


def replicas(platform):
    return {line["replica"] for line in platform.manage("GET", "/talking/logs?tail=1000").json()["items"]}


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
