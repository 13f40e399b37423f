"""The export: names, escaping, and that the dashboard asks for nothing that is not in it."""

import json
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.measured import USED

from cluster import grafana, messages, open_metrics, replica_timeline, service_metrics
from cluster.cli import main
from cluster.histograms import Histogram
from cluster.service_metrics import Minute, Totals

NASTY = 'a"b\\c\nd{e="f"}'


def reading(path="admin/demo-chat", **fields):
    return open_metrics.Reading(path, "running", 3, Totals(Minute(), {}, **fields), replica_timeline.Replicas())


def families(*readings):
    text, _ = open_metrics.render(readings)
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def full():
    """A reading that has a row of every family."""
    histogram = Histogram({3: 2}, 1.0)
    counted = Minute({200: 1}, histogram, histogram, histogram)
    counted.statuses, counted.tokens = service_metrics.Statuses({200: 1}), counted.tokens
    totals = Totals(counted, {"r1": service_metrics.Statuses({200: 1})}, 1, 1, {"r1": 1}, {"r1": USED})
    replica = replica_timeline.Replica("r1", "running", since={"starting": 1.0, "running": 2.0})
    return open_metrics.Reading("admin/demo-chat", "running", 3, totals, replica_timeline.Replicas((replica,), 1))


def test_values_of_labels_are_escaped():
    hardware = {NASTY: messages.HardwareUse(1.0, memory_rss=5)}
    found = families(reading(NASTY, hardware=hardware, at_replica={NASTY: 2}))
    (sample,) = found["moorage_replica_memory_rss_bytes"].samples
    assert sample.labels == {"endpoint": NASTY, "replica_id": NASTY} and sample.value == 5


def test_every_family_has_rows_and_what_is_not_known_has_none():
    found = families(full())
    names = {*(family.name for family in open_metrics.FAMILIES), *(name for name, _, _ in open_metrics.HISTOGRAMS)}
    assert set(found) == names and all(found[name].samples for name in names), [name for name in names if not found[name].samples]
    bare = messages.HardwareUse(1.0, gpus=(messages.Gpu("0"),))
    empty = families(reading(hardware={"r1": bare}))
    for name in (
        "moorage_replica_cpu_cores",
        "moorage_replica_memory_pss_bytes",
        "moorage_gpu_power_watts",
        "moorage_gpu_memory_used_bytes",
    ):
        assert empty[name].samples == []


def test_histograms_end_with_all_and_agree_with_their_count():
    samples = families(full())["latency_distribution"].samples
    buckets = [sample for sample in samples if sample.name.endswith("_bucket")]
    assert buckets[-1].labels["le"] == "+Inf" and buckets[-1].value == 2
    assert {sample.name: sample.value for sample in samples if "le" not in sample.labels} == {
        "latency_distribution_count": 2,
        "latency_distribution_sum": 1.0,
    }


@pytest.fixture
def dashboard():
    return grafana.dashboard()


def queries(dashboard):
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [*asked, *(one["definition"] for one in dashboard["templating"]["list"] if "definition" in one)]


def test_the_dashboard_asks_for_metrics_and_labels_that_the_export_has(dashboard):
    samples = [sample for family in families(full()).values() for sample in family.samples]
    exported = {sample.name for sample in samples}
    labels = {label for sample in samples for label in sample.labels}
    asked = {name for query in queries(dashboard) for name in re.findall(r"\b(?:moorage_|http_requests|latency_)\w+", query)}
    assert asked and asked <= exported, asked - exported
    used = {name for query in queries(dashboard) for name in re.findall(r"(\w+)\s*=~?\"", query)}
    used |= {word for query in queries(dashboard) for names in re.findall(r"(?:by|on) \(([^)]*)\)", query) for word in names.split(", ")}
    legends = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"{{(\w+)}}", target["legendFormat"])
    }
    assert used | legends <= labels, (used | legends) - labels


def test_the_dashboard_shows_every_metric_of_the_export(dashboard):
    text = "\n".join(queries(dashboard))
    names = [*(family.name for family in open_metrics.FAMILIES), *(name for name, _, _ in open_metrics.HISTOGRAMS)]
    assert [name for name in names if name not in text] == []


def test_the_dashboard_is_of_one_endpoint_or_all_and_its_panels_do_not_overlap(dashboard):
    (variable,) = [one for one in dashboard["templating"]["list"] if one["name"] == "endpoint"]
    assert variable["multi"] and variable["includeAll"] and dashboard["uid"] == grafana.UID
    assert all('endpoint=~"$endpoint"' in query or query.startswith("label_values(") for query in queries(dashboard))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) == 23


def test_the_command_prints_the_dashboard():
    from typer.testing import CliRunner

    done = CliRunner().invoke(main.app, ["grafana", "dashboard"])
    assert done.exit_code == 0 and json.loads(done.stdout) == grafana.dashboard()
