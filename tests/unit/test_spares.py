"""Each node has one process ahead of the next replica, in case."""

import pytest

from cluster import observation
from cluster.spares import KEPT_S, REST_S, Spares


def cluster(*nodes, **replicas):
    """`replicas`: replica id -> node."""
    rows = tuple(observation.Node(node, "127.0.0.1", 8, 8) for node in nodes)
    seen = tuple(observation.Replica(name, "starting", node) for name, node in replicas.items())
    return observation.Cluster({"a": observation.Application("a", "running", replicas=seen)}, rows)


@pytest.fixture
def spares():
    return Spares()


def test_every_node_gets_one(spares):
    assert spares.due(cluster("one", "two"), 1) == ["one", "two"]
    assert spares.due(cluster("one", "two"), 2) == []
    assert spares.due(cluster("one", "two", "three"), 3) == ["three"]


def test_one_that_a_replica_used_up_is_replaced_a_while_later(spares):
    spares.due(cluster("one", "two"), 0)
    assert spares.due(cluster("one", "two", x="one"), 5) == []
    assert spares.due(cluster("one", "two", x="one"), 5 + REST_S - 1) == []
    assert spares.due(cluster("one", "two", x="one"), 5 + REST_S) == ["one"]
    assert spares.due(cluster("one", "two", x="one"), 5 + REST_S + 1) == []


def test_one_that_nobody_needed_is_replaced_when_its_time_is_over(spares):
    spares.due(cluster("one"), 0)
    assert spares.due(cluster("one"), KEPT_S - 1) == []
    assert spares.due(cluster("one"), KEPT_S) == ["one"]


def test_a_node_that_comes_back_gets_one_again(spares):
    spares.due(cluster("one"), 0)
    spares.due(cluster(), 1)
    assert spares.due(cluster("one"), 2) == ["one"]
