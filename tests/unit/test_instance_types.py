"""The operator's instance types: what the file may say, how it is refused, and what becomes of it in the hardware table."""

import textwrap

import pytest

from cluster import admission, errors, hardware, instance_types, observation
from cluster.observation import Node
from cluster.settings import Settings

CLUSTER = observation.Cluster(
    nodes=(Node("c", "a", 8, 8, memory_bytes=32 * 2**30), Node("g", "b", 32, 32, 4, 3, "H200", memory_bytes=2**40)),
)


def parsed(text):
    return instance_types.parse(textwrap.dedent(text))


def rows(text, cluster=CLUSTER):
    return {(row.type, row.size): row for row in hardware.instances(cluster, parsed(text))}


FILE = """
    instanceTypes:
      - name: nvidia-h200
        pricePerHour: 2.5
        cpus: 4
      - name: half-node
        accelerator: H200
        sizes: [x2]
        pricePerHour: {x2: 4}
      - name: cpu-large
        cpus: 4
        memoryGb: 16
        pricePerHour: 0.2
    """


def test_a_type_of_a_known_name_changes_that_one_and_other_names_add_types():
    found = rows(FILE)
    assert {kind for kind, _ in found} == {"local-cpu", "nvidia-h200", "half-node", "cpu-large"}
    assert [size for kind, size in found if kind == "nvidia-h200"] == ["x1", "x2", "x4"]
    assert found["nvidia-h200", "x4"].price_per_hour == 10 and found["nvidia-h200", "x4"].cpus == 16
    assert [size for kind, size in found if kind == "half-node"] == ["x2"]
    assert found["half-node", "x2"].price_per_hour == 4 and found["half-node", "x2"].total == 4
    assert [size for kind, size in found if kind == "cpu-large"] == ["x1", "x2", "x4", "x8"]
    assert found["cpu-large", "x2"].cpus == 8 and found["cpu-large", "x2"].memory_bytes == 32 * 2**30


def test_types_that_the_file_does_not_name_can_be_left_out():
    assert {kind for kind, _ in rows("defaults: false\n" + textwrap.dedent(FILE))} == {"nvidia-h200", "half-node", "cpu-large"}


def test_a_gpus_memory_is_known_by_its_type_where_nobody_says_it():
    assert 140 * 2**30 < rows("")["nvidia-h200", "x1"].gpu_memory_bytes < 141 * 2**30
    said = rows("instanceTypes: [{name: nvidia-h200, gpuMemoryGb: 100}]")
    assert said["nvidia-h200", "x2"].gpu_memory_bytes == 200 * 2**30


def test_a_type_that_no_node_has_is_listed_as_not_available():
    row = rows("instanceTypes: [{name: nvidia-b200, pricePerHour: 5}]")["nvidia-b200", "x1"]
    assert (row.status, row.total, row.accelerator_type, row.gpu) == ("not_available", 0, "B200", True)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("instanceTypes:\n  - name: a-type\n    pricePerHuor: 1\n", 3, "pricePerHuor is not a known field"),
        ("instanceTypes:\n  - name: A\n", 2, "name"),
        ("instanceTypes:\n  - name: a-type\n    sizes: [x1, x3]\n", 3, "there is no size 'x3'"),
        ("instanceTypes:\n  - name: a-type\n    cpus: -1\n", 3, "greater than 0"),
        ("instanceTypes:\n  - name: a-type\n    pricePerHour: -1\n", 3, "a price is a number from 0 up"),
        ("instanceTypes:\n  - name: a-type\n  - name: a-type\n", 3, "two types called"),
        ("instanceTypes:\n  - name: a-type\n    vendor: aws\n", 3, "'local'"),
        ("instanceTypes:\n  - {name: a\n", 3, "not YAML"),
        ("- a\n", 1, "instanceTypes"),
        ("instanceTypes:\n  - sizes: [x1]\n", 2, "name is missing"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(text, line, words):
    with pytest.raises(instance_types.BadInstanceTypes) as refusal:
        instance_types.parse(text, "types.yaml")
    assert f"types.yaml, line {line}" in refusal.value.message and words in refusal.value.message


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path, caplog):
    watched = instance_types.Watched(tmp_path, None)
    assert watched() == instance_types.NONE
    file = tmp_path / "instance-types.yaml"
    file.write_text("instanceTypes: [{name: cpu-large, cpus: 4}]")
    assert list(watched().types) == ["cpu-large"]
    file.write_text("instanceTypes: [{name: cpu-large, cpus: none of them}]")
    assert list(watched().types) == ["cpu-large"] and "stay as they were" in caplog.text


def admit(text, instance_type, size="x1", present=None):
    catalogue = parsed(text)
    wire = {"name": "some-name", "model": {"image": {"echo": {}}}, "compute": {"instanceType": instance_type, "instanceSize": size}}
    spec = admission.read(admission.with_accelerator(wire, catalogue))
    return admission.admit(spec, CLUSTER, Settings(home="/srv"), present=present, catalogue=catalogue)


def test_a_replica_claims_what_the_operator_said():
    assert admit(FILE, "cpu-large", "x2").placement.bundles == ({"CPU": 8.0},)
    assert admit(FILE, "nvidia-h200", "x2").placement.bundles == ({"CPU": 8.0, "GPU": 2.0},)
    half = admit(FILE, "half-node", "x2").placement
    assert (half.bundles, half.accelerator_type) == (({"CPU": 1.0, "GPU": 2.0},), "H200")


def test_a_size_that_is_not_offered_is_refused_with_those_that_are():
    with pytest.raises(errors.InvalidRequest, match="offered in the sizes x2"):
        admit(FILE, "half-node", "x1")


def test_a_reserved_type_takes_no_new_endpoints_and_keeps_those_it_has():
    text = "instanceTypes: [{name: local-cpu, status: reserved}]"
    with pytest.raises(errors.InvalidRequest, match="marked local-cpu as reserved"):
        admit(text, "local-cpu")
    assert admit(text, "local-cpu", present="local-cpu").placement.cpus == 1


def test_a_deprecated_type_is_a_warning():
    assert "deprecated" in admit("instanceTypes: [{name: local-cpu, status: deprecated}]", "local-cpu").warnings[0]
