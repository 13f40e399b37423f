"""Where replicas go, on a cluster of several nodes with made-up GPUs and the echo engine."""

import contextlib
import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from support.platforms import until


@pytest.fixture(scope="module")
def cluster(new_platform):
    """A head with two GPUs; `cluster.join(gpus)` adds nodes."""
    with new_platform(num_gpus=2, num_cpus=8) as platform, contextlib.ExitStack() as nodes:
        yield Cluster(platform, nodes)


@dataclasses.dataclass
class Cluster:
    platform: object
    nodes: contextlib.ExitStack

    def join(self, gpus):
        """Another machine, in a home of its own with the head's secrets, as `moorage join` asks for."""
        home = Path(tempfile.mkdtemp(prefix="moorn", dir="/tmp"))
        for name in ("secret", "ray-token"):
            shutil.copy(self.platform.home / name, home / name)
        unwanted = {"MOORAGE_RAY_PORT", "MOORAGE_DASHBOARD_PORT", "MOORAGE_SERVE_PORT", "MOORAGE_PORT"}
        environment = {name: value for name, value in self.platform.environment.items() if name not in unwanted}
        environment |= {"MOORAGE_HOME": str(home), "MOORAGE_NUM_GPUS": str(gpus), "MOORAGE_NUM_CPUS": "8"}
        node = dataclasses.replace(self.platform, home=home, environment=environment)
        self.nodes.callback(shutil.rmtree, home, ignore_errors=True)
        self.nodes.callback(lambda: node.kill_everything())
        node.command("join", self.head)
        return node

    @property
    def head(self):
        lines = self.platform.processes().values()
        return next(
            word.split("=", 1)[1] for line in lines if "raylet/raylet " in line for word in line.split() if "--gcs-address=" in word
        )

    def create(self, name, size, **fields):
        compute = {"accelerator": "gpu", "instanceType": "nvidia-gpu", "instanceSize": size, **fields.pop("compute", {})}
        return self.platform.create(name, compute=compute, wait=False, **fields)


def hardware(platform, size):
    vendors = platform.fetch("/manage/v2/provider/admin").json()["vendors"]
    rows = vendors[0]["regions"][0]["computes"]
    return next((row for row in rows if (row["instanceType"], row["instanceSize"]) == ("nvidia-gpu", size)), None)


def test_no_node_with_room_is_pending_with_the_figures_and_resolves_when_one_joins(cluster):
    platform = cluster.platform
    assert hardware(platform, "x2")["freeOnBestNode"] == 2
    created = cluster.create("needs-four", "x4")
    assert created["status"]["state"] == "pending"
    until(lambda: platform.status("needs-four")["reason"] == "AwaitingResources", 30, what="awaiting resources")
    status = platform.status("needs-four")
    assert status["state"] == "pending"
    assert status["needs"] == {"resource": "gpus", "needed": 4, "total": 2, "freeOnBestNode": 2}
    assert "needs 4 GPUs on one node; the cluster has 2 in all, the best node has 2 free" in status["message"]
    answer = platform.chat("needs-four")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "awaiting_resources")
    cluster.join(4)
    platform.wait("needs-four")
    assert platform.chat("needs-four").status_code == 200
    # All four on the node that has four: the head's two are still free.
    assert hardware(platform, "x2")["freeOnBestNode"] == 2
    assert hardware(platform, "x4")["free"] == 2
    platform.delete("needs-four")
    until(lambda: hardware(platform, "x4")["free"] == 6, 30, what="GPUs given back")


def test_more_gpus_than_a_node_has_are_spread_over_nodes(cluster):
    platform = cluster.platform
    until(lambda: hardware(platform, "x4") is not None, 30, what="the second node")
    cluster.join(2)
    until(lambda: hardware(platform, "x8") is not None, 30, what="eight GPUs in all")
    cluster.create("spread-eight", "x8")
    platform.wait("spread-eight")
    assert hardware(platform, "x1")["free"] == 0
    assert platform.chat("spread-eight").status_code == 200
    platform.delete("spread-eight")


def test_an_endpoint_that_waits_does_not_stand_in_the_way_after_it_was_deleted(cluster):
    platform = cluster.platform
    until(lambda: hardware(platform, "x1")["free"] >= 8, 30, what="all GPUs free")
    cluster.create("holds-all", "x4")
    platform.wait("holds-all")
    cluster.create("first-in-line", "x4")
    until(lambda: platform.status("first-in-line")["reason"] == "AwaitingResources", 30, what="waiting")
    platform.delete("first-in-line")
    cluster.create("second-in-line", "x4")
    platform.delete("holds-all")
    platform.wait("second-in-line", timeout=60)
    platform.delete("second-in-line")


def test_an_update_without_room_for_two_goes_by_recreate(cluster):
    platform = cluster.platform
    cluster.create("big-update", "x4", strategy="recreate")
    platform.wait("big-update")
    platform.manage("PUT", "/big-update", {"model": {"image": {"echo": {"tag": "two"}}}})
    platform.wait("big-update")
    assert platform.chat("big-update").json()["system_fingerprint"] == "two"
    platform.delete("big-update")
