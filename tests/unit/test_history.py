"""What the manager remembers of requests: taken in, dropped where it is not wanted, and swept."""

import dataclasses

import pytest

from cluster import history, log_store, messages, records, request_search
from cluster.settings import Settings
from cluster.store import MemoryStore

DAY = 86400.0
REPLICA = messages.ReplicaIdentity("acme--chat--r3", "r1")


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def past(tmp_path, store, clock):
    settings = Settings(home=tmp_path)
    return history.History(settings, store, log_store.LogStore(tmp_path / "logs" / "endpoints", clock=clock), clock)


def endpoint(**request_log):
    return records.Endpoint("ep-1", "acme", "chat", {"name": "chat", "requestLog": request_log}, target=3)


def prompt(clock):
    return messages.Prompt("id-1", clock.now, "/x", "hello")


def test_a_replica_is_told_what_to_keep_and_remembered(past):
    policy = past.seen(REPLICA, endpoint(prompts=True, redact=["email"], maxBytes=500, ttlDays=1), 3)
    assert policy == messages.PromptPolicy(True, False, ("email",), 500)
    assert past.replicas.find("r1").revision == 3


def test_by_default_it_is_told_to_keep_nothing(past):
    assert past.seen(REPLICA, endpoint(), 3) == messages.PromptPolicy()
    assert past.seen(REPLICA, endpoint(redact=["email"]), 3) == messages.PromptPolicy()


def test_a_full_disk_does_not_fail_an_announcement(past, tmp_path):
    (tmp_path / "logs").write_text("no folder")
    assert past.seen(REPLICA, endpoint(prompts=True), 3).prompts


def test_prompts_that_are_not_wanted_any_more_are_dropped(past, clock):
    past.keep_prompts(endpoint(), [prompt(clock)])
    assert past.prompts.find("acme", "chat", "id-1", 7) is None
    past.keep_prompts(endpoint(prompts=True), [prompt(clock)])
    assert past.prompts.find("acme", "chat", "id-1", 7) is not None


def test_forgetting_an_endpoint_takes_its_logs_and_prompts(past, clock):
    past.keep_prompts(endpoint(prompts=True), [prompt(clock)])
    past.logs.append("acme", "chat", "r1", [messages.LogLine(clock.now, "info", "hello")])
    past.forget("acme", "chat")
    assert past.prompts.find("acme", "chat", "id-1", 7) is None
    assert past.logs.read("acme", "chat", log_store.Wanted()) == []


def test_sweeping_takes_everything_that_is_too_old(past, store, clock, tmp_path):
    row = dataclasses.replace(endpoint(prompts=True, ttlDays=1), created_at=clock.now)
    store.create_endpoint(row, {"model": {}}, None, {})
    past.keep_prompts(row, [prompt(clock)])
    past.lines(messages.RequestLines("edge", "s1", 0, b'{"time":%d,"id":"x"}\n' % (clock.now * 1000)))
    past.sweep()
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1
    clock.now += 2 * DAY
    past.sweep()
    assert list((tmp_path / "logs" / "prompts").rglob("*.jsonl")) == []
    assert len(list((tmp_path / "logs" / "requests").glob("*.log"))) == 1
    clock.now += 40 * DAY
    past.sweep()
    assert list((tmp_path / "logs" / "requests").glob("*.log")) == []


def test_what_cannot_be_deleted_keeps_nothing_else(past, clock, tmp_path):
    past.lines(messages.RequestLines("edge", "s1", 0, b'{"time":%d,"id":"x"}\n' % (clock.now * 1000)))
    stray = tmp_path / "logs" / "prompts" / "acme" / "gone" / "stray"
    stray.parent.mkdir(parents=True)
    stray.touch()
    clock.now += 40 * DAY
    past.sweep()
    assert list((tmp_path / "logs" / "requests").glob("*.log")) == []


def test_what_engines_counted_is_found_by_the_requests_id():
    known = request_search.NoTokens(messages.Usage("id-1", prompt_tokens=3))
    assert known.tokens_of(["id-1", "id-2"]) == {"id-1": messages.Usage("id-1", prompt_tokens=3)}
