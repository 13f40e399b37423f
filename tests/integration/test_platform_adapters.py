"""Adapters on a whole platform: added and removed under load, told in the status, there in every replica, on the echo engine."""

import json
import threading
import time

import httpx
import pytest
from support.adapters import write_adapter
from support.platforms import until

NAME = "stacked"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def stacked(platform):
    """An endpoint with one adapter; the platform's model cache is a place that adapters may lie in."""
    platform.adapters = platform.home / "models" / "adapters"
    platform.create(NAME, model={"image": {"echo": {"tokensPerSecond": 20}}, "adapters": [adapter(platform, "style")]})
    yield platform
    platform.delete(NAME)


def adapter(platform, name, **files):
    return {"name": name, "repository": str(write_adapter(platform.adapters / name, **files))}


def state(platform, name, endpoint=NAME):
    return next((one for one in platform.status(endpoint)["adapters"] if one["name"] == name), None)


def ask(platform, model, *, own=False, text="hello there", timeout=30, **fields):
    """One chat request on the shared URL, or on the endpoint's own."""
    path = f"/endpoints/admin/{NAME}{CHAT}" if own else CHAT
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return httpx.post(platform.url + path, json=body, headers={"authorization": f"Bearer {platform.token}"}, timeout=timeout)


def said(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


class Stream(threading.Thread):
    """A stream that runs beside the test; `text` is all that it said, once it has ended whole."""

    def __init__(self, platform, model, words):
        super().__init__(daemon=True)
        self.began, self.text, self.done = threading.Event(), "", False
        self._platform, self._model, self._words = platform, model, words
        self.start()
        assert self.began.wait(30)

    def run(self):
        url, headers = f"{self._platform.url}{CHAT}", {"authorization": f"Bearer {self._platform.token}"}
        body = {"model": self._model, "stream": True, "messages": [{"role": "user", "content": self._words}]}
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                self.done |= data == "[DONE]"
                if data.startswith("{"):
                    self.text += json.loads(data)["choices"][0]["delta"].get("content") or ""
                    self.began.set()


def test_adapters_given_at_creation_are_there_when_it_runs(stacked):
    assert state(stacked, "style")["state"] == "ready"
    for model in (f"{NAME}:style", f"admin/{NAME}:style"):
        answer = ask(stacked, model)
        assert (said(answer), answer.json()["model"]) == ("<style> hello there", model)
    for model in ("style", f"{NAME}:style"):
        assert said(ask(stacked, model, own=True)) == "<style> hello there"
    assert said(ask(stacked, NAME)) == said(ask(stacked, "anything", own=True)) == "hello there"
    listed = {model["id"]: model.get("parent") for model in stacked.fetch("/v1/models").json()["data"]}
    assert listed[f"{NAME}:style"] == NAME
    assert {model["id"] for model in stacked.fetch(f"/endpoints/admin/{NAME}/v1/models").json()["data"]} == {NAME, f"{NAME}:style"}


def test_one_is_added_and_removed_while_streams_run_and_no_replica_starts(stacked):
    revision, words = stacked.status(NAME)["targetRevision"], " ".join(f"w{number}" for number in range(60))
    base = Stream(stacked, NAME, words)
    assert stacked.manage("POST", f"/{NAME}/adapters", adapter(stacked, "tone")).status_code == 200
    added = time.monotonic()
    until(lambda: state(stacked, "tone")["state"] == "ready", 10, what="the adapter is ready")
    assert time.monotonic() - added < 2
    styled = Stream(stacked, f"{NAME}:tone", words)
    assert stacked.manage("DELETE", f"/{NAME}/adapters/tone").status_code == 200
    for model, own in ((f"{NAME}:tone", False), (f"{NAME}:tone", True), ("tone", True)):
        refused = ask(stacked, model, own=own, max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found"), (model, own)
    assert not styled.done
    styled.join(60), base.join(60)
    assert (styled.text, styled.done) == (f"<tone> {words}", True)
    assert (base.text, base.done) == (words, True)
    assert stacked.status(NAME)["targetRevision"] == revision
    kinds = [(event["kind"], event["data"].get("adapter")) for event in stacked.manage("GET", f"/{NAME}/events").json()["items"]]
    assert ("adapter_ready", "tone") in kinds and ("adapter_removed", "tone") in kinds


def test_what_cannot_be_loaded_is_refused_or_told_with_the_reason(stacked):
    refused = stacked.manage("POST", f"/{NAME}/adapters", adapter(stacked, "big", rank=64))
    assert refused.status_code == 400 and "maxLoraRank to 64" in refused.json()["error"]
    broken = adapter(stacked, "broken", echo={"failure": "told to fail"})
    assert stacked.manage("POST", f"/{NAME}/adapters", broken).status_code == 200
    failed = until(lambda: state(stacked, "broken")["state"] == "failed" and state(stacked, "broken"), 10, what="the failure is told")
    assert (failed["reason"], "told to fail" in failed["message"]) == ("LoadFailed", True)
    answer = ask(stacked, f"{NAME}:broken")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "failed")
    events = stacked.manage("GET", f"/{NAME}/events?level=error").json()["items"]
    assert [(event["kind"], event["reason"]) for event in events] == [("adapter_failed", "LoadFailed")]
    assert stacked.status(NAME)["state"] == "running"
    stacked.manage("DELETE", f"/{NAME}/adapters/broken")


def test_a_new_replica_answers_nobody_before_it_has_the_adapters(stacked):
    slow = adapter(stacked, "slow", echo={"load_seconds": 1})
    stacked.manage("POST", f"/{NAME}/adapters", slow)
    until(lambda: state(stacked, "slow")["state"] == "ready", 10, what="the first replica has it")
    stacked.manage("PUT", f"/{NAME}", {"compute": {"scaling": {"minReplica": 2, "maxReplica": 2}}})
    heard = set()

    def both():
        heard.update(said(ask(stacked, f"{NAME}:slow", max_tokens=1)) for _ in range(4))
        return stacked.status(NAME)["readyReplica"] == 2

    until(both, 60, what="a second replica")
    until(lambda: state(stacked, "slow")["readyReplica"] == 2, 10, what="the second replica says so")
    both()
    assert heard == {"<slow>"}
    stacked.manage(
        "PUT", f"/{NAME}", {"compute": {"scaling": {"minReplica": 1, "maxReplica": 1}}, "model": {"adapters": [adapter(stacked, "style")]}}
    )


def test_the_first_adapter_of_an_endpoint_makes_a_revision_and_its_name_never_means_the_base_model(stacked):
    stacked.create("plain-chat", echo={"loadSeconds": 2})
    made = stacked.manage("POST", "/plain-chat/adapters", adapter(stacked, "style")).json()
    assert "a new revision starts" in made["warnings"][0]
    heard = []

    def ready():
        answer = stacked.chat("plain-chat", text="hello there")
        assert answer.json()["choices"][0]["message"]["content"] == "hello there"
        body = {"model": "style", "messages": [{"role": "user", "content": "hello there"}]}
        styled = stacked.fetch(f"/endpoints/admin/plain-chat{CHAT}", "POST", body)
        heard.append(styled.json()["choices"][0]["message"]["content"] if styled.status_code == 200 else styled.json()["error"]["code"])
        return state(stacked, "style", "plain-chat")["state"] == "ready"

    until(ready, 60, what="the new revision has it")
    assert set(heard) <= {"starting", "<style> hello there"}
    assert stacked.status("plain-chat")["revision"] == 2
    stacked.delete("plain-chat")


def test_the_command_adds_lists_and_removes(stacked):
    tone = adapter(stacked, "tone")
    stacked.command("adapters", "add", NAME, "tone", tone["repository"], "--wait")
    assert {item["name"]: item["state"] for item in json.loads(stacked.command("adapters", "ls", NAME, "--json").stdout)}["tone"] == "ready"
    stacked.command("adapters", "remove", NAME, "tone")
    assert "tone" not in stacked.command("adapters", "ls", NAME).stdout
    missing = stacked.command("adapters", "remove", NAME, "tone", check=False)
    assert missing.returncode == 1 and "no adapter" in missing.stderr
