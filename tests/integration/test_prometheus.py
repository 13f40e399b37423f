"""A real Prometheus scrapes the export of the real routes, over twins, and answers the dashboard's queries."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import httpx
import pytest
from servers.grafana import serving
from support.api import Api
from support.management import UnderManage
from support.measured import fill
from support.platforms import until
from support.ports import free_port

from cluster import grafana

CONFIGURATION = """
global:
  scrape_interval: 250ms
  scrape_timeout: 250ms
scrape_configs:
  - job_name: moorage
    metrics_path: /manage/v2/open-metrics
    authorization:
      credentials_file: {token}
    static_configs:
      - targets: ["{target}"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The management API with an endpoint that is used, on a port."""
    api = Api(tmp_path_factory.mktemp("home"))
    api.create()
    fill(api)
    with serving(UnderManage(api.app)) as url:
        api.url = url
        yield api


@pytest.fixture(scope="module")
def prometheus(served, tmp_path_factory):
    """A Prometheus that scrapes it, as an HTTP client; ready when this returns."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "token").write_text(served.token)
    (folder / "token").chmod(0o600)
    target = served.url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(token=folder / "token", target=target))
    command = [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    output = (folder / "output").open("wb")
    process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            until(lambda: ready(client) or process.poll() is not None, 60, what="Prometheus is ready")
            assert process.poll() is None, (folder / "output").read_text()
            yield client
    finally:
        process.terminate()
        process.wait(20)
        output.close()


def program(name):
    """A program of Prometheus. Not found: skipped on a developer's machine, a failure where CI is set."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Prometheus is not installed (Debian package: prometheus)")
    return found


def ready(client):
    with contextlib.suppress(httpx.HTTPError):
        return client.get("/-/ready").status_code == 200


def ask(client, query):
    """The rows of an instant query: (labels, value)."""
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]


def test_prometheus_takes_the_export_with_a_platform_key(prometheus):
    until(lambda: ask(prometheus, "up == 1"), 30, what="a scrape")
    rows = ask(prometheus, 'http_requests_total{endpoint="admin/demo-chat"}')
    found = {(row.get("replica_id", ""), row["status_code"]): value for row, value in rows}
    assert found == {("r1", "200"): 90, ("r1", "500"): 10, ("", "429"): 3}


def test_rates_and_percentiles_come_out_of_it(served, prometheus):
    """All answers take 0.2 s: the 95th percentile lies between the two bounds round it."""

    def busier():
        fill(served, good=500, bad=0)
        return [value for _, value in ask(prometheus, "sum(rate(http_requests_total[10s]))") if value > 0]

    until(busier, 30, what="a rate")
    query = "histogram_quantile(0.95, sum by (le) (rate(latency_distribution_bucket[10s])))"
    (_, quantile), *_ = until(lambda: [row for row in ask(prometheus, query) if row[1] == row[1]], 30, what="a percentile")
    assert 0.178 <= quantile <= 0.317


def test_every_query_of_the_dashboard_is_understood(prometheus):
    until(lambda: ask(prometheus, "up == 1"), 30, what="a scrape")
    for panel in grafana.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "10s").replace("$endpoint", "admin/demo-chat")
            ask(prometheus, query)


def test_promtool_finds_nothing_wrong_with_the_export(served):
    fill(served)
    text = served.call("GET", "/manage/v2/open-metrics", headers={"accept": "text/plain"}).content
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b""), done.stderr.decode()
    assert b'moorage_gpu_power_watts{endpoint="admin/demo-chat",gpu="0",replica_id="r1"} 420.5' in text
