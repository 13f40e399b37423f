"""The replica count from the replicas' own loads."""

import types

import pytest

from cluster import autoscaling


@pytest.mark.parametrize(
    ("loads", "running", "target", "wanted"),
    [
        ([0.0], 1, 1, 1),
        ([16.0], 1, 1, 2),
        ([8.0], 1, 1, 1),
        ([8.01], 1, 1, 2),
        ([40.0, 0.0], 2, 2, 5),
        ([0.0, 0.0, 0.0], 3, 3, 1),
        ([0.0, 0.0], 3, 3, 3),  # one has not reported yet: no fewer than wanted now
        ([], 0, 1, 1),
    ],
)
def test_enough_replicas_for_the_load(loads, running, target, wanted):
    assert autoscaling.wanted_replicas(loads, 8.0, running, target) == wanted


def test_a_policy_that_cannot_read_its_context_keeps_the_count_and_never_raises():
    assert autoscaling.policy(types.SimpleNamespace(target_num_replicas=3)) == (3, {})


def test_the_policy_reads_the_replicas_reports():
    config = types.SimpleNamespace(get_target_ongoing_requests=lambda: 4.0)
    reports = {autoscaling.METRIC: {"a": 6.0, "b": 3.0}}
    context = types.SimpleNamespace(aggregated_metrics=reports, config=config, current_num_replicas=2, target_num_replicas=2)
    assert autoscaling.policy(context) == (3, {})
