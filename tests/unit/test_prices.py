"""What a replica costs, by the operator's table."""

import pytest

from cluster import instance_types, prices

TABLE = instance_types.parse(
    """
instanceTypes:
  - {name: nvidia-h200, pricePerHour: 4.0}
  - {name: local-cpu, pricePerHour: {x1: 0.1, x4: 0.2}}
"""
)


def fields(instance, size, **placements):
    return {"compute": {"instanceType": instance, "instanceSize": size}, "placements": placements}


@pytest.mark.parametrize(
    ("instance", "size", "accelerators", "per_hour"),
    [
        ("nvidia-h200", "x1", 1, 4.0),
        ("nvidia-h200", "x8", 8, 32.0),
        ("local-cpu", "x1", 1, 0.1),
        ("local-cpu", "x4", 4, 0.2),
        ("local-cpu", "x2", 2, 0.2),
        ("nvidia-gone", "x2", 2, 0.0),
        ("nvidia-h200", "odd", 1, 4.0),
    ],
)
def test_an_instance_costs_what_the_table_says_whether_or_not_a_node_has_it(instance, size, accelerators, per_hour):
    rate = prices.of_revision(fields(instance, size), "", TABLE)
    assert (rate.accelerators, rate.per_hour) == (accelerators, pytest.approx(per_hour))
    assert rate.cost(1800) == pytest.approx(per_hour / 2)


def test_a_member_costs_its_part_of_the_instance():
    divided = fields("nvidia-h200", "x8", large={"gpus": 4, "cpus": 1}, small={"gpus": 2, "cpus": 1})
    assert [prices.of_revision(divided, name, TABLE).per_hour for name in ("large", "small")] == [16.0, 8.0]
    halves = fields("local-cpu", "x1", one={"gpus": 0, "cpus": 0.5})
    assert prices.of_revision(halves, "one", TABLE) == prices.Rate("local-cpu", "x1", 0.5, 0.05)


def test_a_revision_that_says_nothing_is_the_smallest_of_cpus():
    assert prices.of_revision({}, "", TABLE).instance_type == "local-cpu"
    assert prices.UNKNOWN.cost(3600) == 0
