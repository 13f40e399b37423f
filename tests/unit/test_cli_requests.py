"""`moorage requests`, and the filters of `moorage endpoints logs` and `events`."""

import time

import pytest
from support.access_lines import line
from support.cli import runner

from cluster import messages, records
from cluster.cli import moments


@pytest.fixture
def run(api, monkeypatch, tmp_path):
    return runner(api, monkeypatch, tmp_path / "cli")


@pytest.fixture
def told(api):
    made = api.create()
    rows = [
        line("first", time.time() + 1, endpoint="admin/demo-chat"),
        line("second", time.time() + 2, endpoint="admin/demo-chat", status=429, code="rate_limit_exceeded", end="LR", key="k9"),
        line("elsewhere", time.time() + 3, endpoint="admin/another", end="CD", ms={"active": 2500}),
    ]
    api.history.lines(messages.RequestLines("edge", "s1", 0, b"".join(rows)))
    api.history.tokens.known["first"] = messages.Usage("first", prompt_tokens=10, completion_tokens=4, cached_tokens=8)
    return made


def column(text, name):
    head, *rows = [line.split("\t") for line in text.splitlines()]
    return [row[head.index(name)] for row in rows]


def test_requests_of_one_endpoint_and_of_all_newest_last(run, told):
    assert column(run("requests", "demo-chat"), "ID") == ["first", "second"]
    assert column(run("requests"), "ID") == ["first", "second", "elsewhere"]
    assert [one["id"] for one in run("requests", "demo-chat", "--json")] == ["first", "second"]


def test_the_table_says_how_each_ended(run, told):
    text = run("requests")
    assert column(text, "ENDED") == ["finished", "rate_limit_exceeded", "client left"]
    assert column(text, "TOTAL") == ["5 ms", "5 ms", "2.50 s"]
    assert column(text, "TOKENS")[0] == "10 (8 cached) + 4"


def test_filters_are_passed_on(run, told):
    assert column(run("requests", "--status", "4xx"), "ID") == ["second"]
    assert column(run("requests", "--key", "k9"), "ID") == ["second"]
    assert column(run("requests", "--slower-than", "2"), "ID") == ["elsewhere"]
    assert column(run("requests", "--outcome", "client_left", "--since", "1h"), "ID") == ["elsewhere"]
    assert column(run("requests", "--limit", "1"), "ID") == ["elsewhere"]
    assert "outcome" in run("requests", "--outcome", "well", code=1)


def test_one_request_is_shown_whole(run, told, api):
    api.logs.append("admin", "demo-chat", "r1", [messages.LogLine(time.time(), "debug", "request first POST")])
    text = run("requests", "demo-chat", "--id", "first")
    assert "It was answered whole." in text
    assert "request first POST" in text
    assert run("requests", "--id", "elsewhere", "--json")["endpoint"] == "admin/another"
    assert "no such request" in run("requests", "--id", "nothing", code=1)


def test_logs_are_filtered_and_show_no_line_per_request_unless_asked(run, api):
    api.create()
    lines = [
        messages.LogLine(100.0, "debug", "a request"),
        messages.LogLine(200.0, "info", "hello"),
        messages.LogLine(300.0, "info", "again"),
    ]
    api.logs.append("admin", "demo-chat", "r1", lines)

    def texts(*words):
        return [entry["text"] for entry in run("endpoints", "logs", "demo-chat", *words, "--json")]

    assert texts() == ["hello", "again"]
    assert texts("--level", "debug") == ["a request", "hello", "again"]
    assert texts("--until", "250") == ["hello"]
    assert texts("--text", "gain") == ["again"]
    assert texts("--before", "300.0:1") == ["hello"]


def test_events_are_filtered(run, api):
    made = api.create()
    api.store.add_events(
        [records.Event(made["id"], 100.0, "phase", "Loading.", replica="r1"), records.Event(made["id"], 200.0, "live", "Live.")]
    )

    def messages_of(*words):
        return [event["message"] for event in run("endpoints", "events", "demo-chat", *words, "--json")]

    assert messages_of("--kind", "phase") == ["Loading."]
    assert messages_of("--replica", "r1", "--text", "load") == ["Loading."]
    assert messages_of("--until", "150") == ["Loading."]
    assert messages_of("--tail", "1") == ["Live."]


@pytest.mark.parametrize(
    ("text", "sent"), [("90s", "910.000"), ("2m", "880.000"), ("1h", "-2600.000"), ("2026-01-31", "2026-01-31"), (None, None)]
)
def test_times_are_how_long_ago_or_moments(text, sent):
    assert moments.query(text, None, lambda: 1000.0)["since"] == sent
