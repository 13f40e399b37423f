"""The hardware table, worked out from made-up nodes."""

from cluster import hardware, observation
from cluster.observation import Node

GIB = 1024**3
CPU_NODE = Node("c", "10.0.0.1", cpus=6, cpus_free=5, memory_bytes=12 * GIB)


def gpu_node(identity, free, kind="H200", gpus=8):
    return Node(identity, "10.0.0.2", 16, 16, gpus, free, kind, memory_bytes=gpus * GIB, gpu_memory_bytes=gpus * 141 * GIB)


def rows(*nodes):
    return {(row.type, row.size): row for row in hardware.instances(observation.Cluster(nodes=nodes))}


def test_cpu_sizes_double_up_to_the_biggest_node():
    assert list(rows(CPU_NODE)) == [("local-cpu", "x1"), ("local-cpu", "x2"), ("local-cpu", "x4")]


def test_a_cluster_without_nodes_has_no_hardware():
    assert rows() == {}


def test_gpu_sizes_double_up_to_the_clusters_total_over_several_nodes():
    found = rows(gpu_node("a", 8), gpu_node("b", 8))
    assert [size for kind, size in found if kind == "nvidia-h200"] == ["x1", "x2", "x4", "x8", "x16"]
    assert found["nvidia-h200", "x16"].fitting == 1


def test_two_half_free_nodes_have_no_room_for_a_whole_one():
    row = rows(gpu_node("a", 4), gpu_node("b", 4))["nvidia-h200", "x8"]
    assert (row.status, row.total, row.free, row.free_best_node) == ("not_available", 16, 8, 4)


def test_room_for_one_more_is_low_availability():
    found = rows(gpu_node("a", 4), gpu_node("b", 3))
    assert found["nvidia-h200", "x4"].status == "low_availability"
    assert found["nvidia-h200", "x2"].status == "available"


def test_gpus_of_unknown_type_are_nvidia_gpu_and_types_are_told_apart():
    found = rows(gpu_node("a", 1, kind="", gpus=1), gpu_node("b", 1, kind="RTX-PRO 6000", gpus=1))
    assert found["nvidia-gpu", "x1"].accelerator_type is None
    assert found["nvidia-rtx-pro-6000", "x1"].accelerator_type == "RTX-PRO 6000"


def test_the_answer_has_every_field_that_the_hugging_face_client_reads():
    answer = hardware.wire(hardware.instances(observation.Cluster(nodes=(CPU_NODE, gpu_node("a", 6)))))
    vendor = answer["vendors"][0]
    computes = {row["id"]: row for row in vendor["regions"][0]["computes"]}
    assert (vendor["name"], vendor["regions"][0]["name"]) == ("local", "local")
    assert computes["local-cpu-x2"]["memoryGb"] == 4
    assert computes["nvidia-h200-x2"] == {
        "id": "nvidia-h200-x2",
        "accelerator": "gpu",
        "instanceType": "nvidia-h200",
        "instanceSize": "x2",
        "architecture": "H200",
        "numAccelerators": 2,
        "numCpus": 4,
        "memoryGb": 2,
        "gpuMemoryGb": 282,
        "pricePerHour": 0.0,
        "status": "available",
        "quota": {"maxAccelerators": 8, "usedAccelerators": 2},
        "total": 8,
        "free": 6,
        "freeOnBestNode": 6,
    }
