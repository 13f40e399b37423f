"""`moorage endpoints metrics` and what `describe` shows of hardware."""

import pytest
from support.cli import runner
from support.management import Management
from support.measured import USED, fill

from cluster.cli import metrics


@pytest.fixture
def api(tmp_path):
    return Management(tmp_path, grafana_url="http://grafana:3000")


@pytest.fixture
def moorage(api, monkeypatch, tmp_path):
    run = runner(api, monkeypatch, tmp_path)
    run("endpoints", "create", "demo-chat", "--engine", "echo")
    return run


def rows(text):
    return [line.split("\t") for line in text.splitlines()]


def test_metrics_are_shown_as_tables(moorage, api):
    fill(api)
    shown = rows(moorage("endpoints", "metrics", "demo-chat"))
    assert ["pending", "2"] in shown and ["requests", "103"] in shown and ["by status", "200: 90, 429: 3, 500: 10"] in shown
    assert ["replicas", "1 of 1, at most 1"] in shown
    (latency,) = [row for row in shown if row[0] == "in all"]
    assert latency[1:3] == ["90", "0.200"] and 0.18 < float(latency[3]) < 0.22
    (replica,) = [row for row in shown if row[0] == "r1" and "running" in row]
    assert replica[-3:] == ["3", "1.50 of 2", "2.00"]
    assert ["r1", "0", "NVIDIA H200", "75%", "60.0", "140.0", "51", "420"] in shown


def test_an_endpoint_without_requests_and_without_hardware_is_shown_too(moorage, api):
    shown = rows(moorage("endpoints", "metrics", "demo-chat"))
    assert ["requests", "0"] in shown and not [row for row in shown if row[0] in ("in all", "REPLICA")]
    fill(api, hardware=None)
    (replica,) = [row for row in rows(moorage("endpoints", "metrics", "demo-chat")) if row[0] == "r1"]
    assert replica[-2:] == ["", ""]


def test_json_is_the_apis_own_answer(moorage, api):
    fill(api)
    assert moorage("endpoints", "metrics", "demo-chat", "--json", "--minutes", "60")["requests"]["total"] == 103
    assert "no endpoint" in moorage("endpoints", "metrics", "nothing", code=1)


def test_watching_shows_it_again_until_interrupted(moorage, api, monkeypatch):
    monkeypatch.setattr(metrics, "WATCH_S", 0)
    asked = []
    call = api.handle_request

    def interrupted(request):
        asked.append(request.url.path)
        if len([path for path in asked if path.endswith("/metrics")]) > 3:
            raise KeyboardInterrupt
        return call(request)

    monkeypatch.setattr(api, "handle_request", interrupted)
    done = moorage.all("endpoints", "metrics", "demo-chat", "--watch")
    assert done.stdout.count("by status") == 0 and done.stdout.count("requests\t0") == 3


def test_describe_shows_what_replicas_use_and_where_the_dashboard_is(moorage, api):
    before = moorage("endpoints", "describe", "demo-chat")
    assert "dashboard\thttp://grafana:3000/d/" in before and "REPLICA" not in before
    fill(api, hardware=USED)
    (replica,) = [row for row in rows(moorage("endpoints", "describe", "demo-chat")) if row[0] == "r1" and "running" in row]
    assert replica[-2:] == ["1.50 of 2", "2.00"]
