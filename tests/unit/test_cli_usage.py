"""`moorage usage` against the management API in this process."""

import csv
import io
import time

import pytest
from support import cli

from cluster import windows
from cluster.usage_records import CapacityDay, UsageRow

NOW = time.time()


@pytest.fixture
def run(api, monkeypatch, tmp_path):
    return cli.runner(api, monkeypatch, tmp_path)


@pytest.fixture
def used(api):
    api.create(limits={"tokensPerDay": 10, "budget": 0.25})
    rows = [("a", "k1", 0.25), ("b", "k2", 2.0)]
    api.store.add_usage(
        [
            UsageRow(
                f"r{name}", "admin", "demo-chat", 1, "r", key=key, prompt_tokens=7, share_s=1800.0, cost=cost, ended_at=NOW, stored_at=NOW
            )
            for name, key, cost in rows
        ]
    )
    held = {"ready_s": 5400.0, "starting_s": 1800.0, "accelerator_s": 7200.0, "hourly_cost": 4.0, "zeros": 1, "zero_wait_cost": 0.5}
    api.store.add_capacity([CapacityDay(windows.day(NOW), "admin", "demo-chat", 1, "local-cpu", "x1", **held)], 0.0, 1.0)


def test_use_is_a_table_with_cost_and_the_shares_of_time(run, used):
    lines = [line.split("\t") for line in run("usage", "demo-chat", "--by", "key").splitlines()]
    heading, *rows = lines[:4]
    assert heading[:3] == ["KEY", "KEY'S DESCRIPTION", "REQUESTS"] and heading[-1] == "COST USD"
    assert [(row[0], row[2], row[-1]) for row in rows] == [("k1", "1", "0.250000"), ("k2", "1", "2.00"), ("total", "2", "2.25")]
    titles, shares = lines[4], lines[5]
    assert dict(zip(titles, shares, strict=True)) == {
        "REPLICA H": "2.000",
        "ACCELERATOR H": "2.000",
        "BUSY": "50.0%",
        "IDLE": "25.0%",
        "STARTING": "25.0%",
        "HOURLY": "4.00",
        "COMMITTED": "0.00",
        "COST USD": "4.00",
        "BEFORE ZERO": "0.500000",
    }


def test_each_table_is_explained_and_the_days_are_named(run, used):
    told = run.all("usage").stderr
    assert windows.day(NOW) in told and "Requests:" in told and "Hardware:" in told


def test_all_endpoints_are_told_apart_by_default_and_one_by_day(run, used):
    assert [item["endpoint"] for item in run("usage", "--json")["items"]] == ["demo-chat"]
    assert [item["day"] for item in run("usage", "admin/demo-chat", "--json")["items"]] == [windows.day(NOW)]


def test_csv_is_csv_alone(run, used):
    rows = list(csv.DictReader(io.StringIO(run("usage", "demo-chat", "--by", "key", "--csv"))))
    assert [row["key"] for row in rows] == ["k1", "k2"]


def test_limits_show_what_is_left(run, used):
    lines = [line.split("\t") for line in run("usage", "demo-chat", "--limits").splitlines()]
    assert [line[2:6] + line[7:] for line in lines[1:]] == [
        ["tokensPerDay", "10", "14", "0", "used up"],
        ["budget", "0.25", "2.25", "0", "used up"],
    ]
    assert "no limits" in run.all("usage", "--limits").stderr


def test_a_bad_day_is_the_servers_own_sentence(run, used):
    assert "since takes a day" in run("usage", "--since", "soon", code=1)
