"""The metrics of an endpoint over the management API, for people and for Prometheus."""

import time

import pytest
from support import people
from support.api import HUB_TIME, Api, refused
from support.measured import fill

from cluster import grafana, roles
from cluster.api import metrics_schemas


@pytest.fixture
def busy(api):
    api.create()
    fill(api)
    return api


def test_metrics_tell_requests_latency_tokens_and_replicas(busy):
    busy.control.loads = lambda endpoint: [1.0, 2.5]
    found = busy.call("GET", "/demo-chat/metrics").json()
    metrics_schemas.Metrics.model_validate(found, extra="forbid")
    assert (found["running"], found["pending"], found["ready"], found["target"], found["max"]) == (3.5, 2, 1, 1, 1)
    assert found["requests"] == {"total": 103, "byStatus": {"200": 90, "429": 3, "500": 10}, "byClass": {"2xx": 90, "4xx": 3, "5xx": 10}}
    assert found["latency"]["total"]["p50"] == pytest.approx(0.2, rel=0.06) and found["latency"]["total"]["count"] == 90
    assert found["latency"]["engine"]["p99"] == pytest.approx(0.15, rel=0.06)
    assert found["latency"]["firstToken"]["mean"] == pytest.approx(0.05)
    assert found["tokens"] == {"prompt": 1800, "completion": 720, "cached": 0, "images": 0}
    assert [(point["running"], point["target"]) for point in found["timeline"]] == [(1, 2)]


def test_metrics_tell_what_each_replica_does_and_uses(busy):
    (replica,) = busy.call("GET", "/demo-chat/metrics").json()["replicas"]
    assert (replica["id"], replica["state"], replica["running"]) == ("r1", "running", 3)
    assert replica["requests"] == {"200": 90, "500": 10}
    assert HUB_TIME.fullmatch(replica["since"]["running"])
    used = replica["hardware"]
    assert (used["cpuCores"], used["cpuUtilization"], used["memoryPss"]) == (1.5, 0.75, 2 * 2**30)
    assert used["gpus"] == [
        {
            **{"index": "0", "name": "NVIDIA H200", "utilization": 0.75, "temperature": 51.0, "power": 420.5},
            **{"memoryUsed": 60 * 2**30, "memoryTotal": 140 * 2**30, "memoryUtilization": 0.4286},
        }
    ]


def test_an_endpoint_without_requests_has_metrics_too(api):
    api.create()
    found = api.call("GET", "/demo-chat/metrics").json()
    metrics_schemas.Metrics.model_validate(found, extra="forbid")
    assert found["requests"]["total"] == 0 and found["latency"]["total"]["p99"] is None and found["replicas"] == []


def test_since_says_how_far_back_requests_count(busy):
    found = busy.call("GET", f"/demo-chat/metrics?since={time.time() - 120:.0f}").json()
    assert found["requests"]["total"] == 103 and HUB_TIME.fullmatch(found["since"])
    assert "since takes a time" in refused(busy.call("GET", "/demo-chat/metrics?since=yesterday"), 400, "invalid_request")


def test_the_export_is_openmetrics_and_on_request_prometheus_older_text(busy):
    answer = busy.call("GET", "/demo-chat/open-metrics")
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.text.endswith("# EOF\n")
    assert 'http_requests_total{endpoint="admin/demo-chat",replica_id="r1",status_code="500"} 10.0' in answer.text
    assert 'latency_distribution_bucket{endpoint="admin/demo-chat",le="0.316"} 90.0' in answer.text
    assert 'moorage_gpu_power_watts{endpoint="admin/demo-chat",gpu="0",replica_id="r1"} 420.5' in answer.text
    older = busy.call("GET", "/demo-chat/open-metrics", headers={"accept": "text/plain;version=0.0.4"})
    assert older.headers["content-type"].startswith("text/plain; version=0.0.4") and "# EOF" not in older.text
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    assert busy.call("GET", "/demo-chat/open-metrics", headers={"accept": prometheus}).text.endswith("# EOF\n")


def test_one_export_has_every_endpoint_that_the_key_may_see(busy):
    busy.create("other-chat")
    busy.store.add_namespace("team")
    made = busy.call("POST", "/manage/v2/endpoint/team", {"name": "team-chat", "model": {"image": {"echo": {}}}})
    assert made.status_code == 200, made.text
    all_of_them = busy.call("GET", "/manage/v2/open-metrics").text
    assert all(
        f'moorage_replicas_max{{endpoint="{path}"}}' in all_of_them for path in ("admin/demo-chat", "admin/other-chat", "team/team-chat")
    )
    theirs = people.user(busy.store, "tom", role=roles.VIEWER, tenant="team")
    own = busy.call("GET", "/manage/v2/open-metrics", key=theirs).text
    assert 'endpoint="team/team-chat"' in own and "admin/" not in own
    refused(busy.call("GET", "/demo-chat/open-metrics", key=theirs), 404, "not_found")
    refused(busy.call("GET", "/manage/v2/open-metrics", key=""), 401, "invalid_api_key")


def test_a_deleted_endpoint_leaves_the_export_and_its_namesake_begins_at_zero(busy):
    busy.create("other-chat")
    busy.call("DELETE", "/demo-chat")
    assert "demo-chat" not in busy.call("GET", "/manage/v2/open-metrics").text
    busy.timeline.see({"admin/other-chat"}, [], time.time())
    busy.create()
    assert busy.call("GET", "/demo-chat/metrics").json()["requests"]["total"] == 0


def test_an_endpoint_links_to_its_dashboard_where_the_operator_named_a_grafana(tmp_path, api):
    assert api.create()["status"]["grafana"] is None
    linked = Api(tmp_path, grafana_url="https://grafana.example/sub/")
    link = linked.create()["status"]["grafana"]
    assert link == f"https://grafana.example/sub/d/{grafana.UID}/moorage?var-endpoint=admin%2Fdemo-chat"
    assert linked.call("GET", "/demo-chat").json()["status"]["grafana"] == link
