"""Durations in steps: bounds, percentiles, sums, and what the export shows of them."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import histograms
from cluster.histograms import Histogram


@given(st.floats(min_value=0, max_value=5000))
def test_a_duration_is_in_the_first_step_whose_bound_it_does_not_exceed(seconds):
    number = histograms.step(seconds)
    assert seconds <= histograms.bound(number) * (1 + 1e-9)
    assert number == 0 or seconds > histograms.bound(number - 1) * (1 - 1e-9)


def test_every_bound_is_in_its_own_step():
    numbers = range(histograms.LAST + 1)
    assert [histograms.step(histograms.bound(number)) for number in numbers] == list(numbers)
    assert histograms.bound(histograms.step(1e9)) == math.inf


@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_percentiles_are_right_within_six_percent(percent):
    random.seed(percent)
    durations = sorted(random.lognormvariate(-1, 1.2) for _ in range(20_000))
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    assert histogram.percentile(percent) == pytest.approx(durations[int(len(durations) * percent / 100)], rel=0.06)


def test_nothing_counted_has_no_percentiles_and_the_longest_counts_as_the_last_bound():
    histogram = Histogram()
    assert histogram.percentile(50) is None and histogram.count == 0
    histogram.add(10**6)
    assert histogram.percentile(99) == pytest.approx(1000)
    histogram.add(-5)
    assert histogram.percentile(1) <= 0.001 and histogram.total == 10**6


def test_what_was_counted_apart_adds_up():
    one, other, both = Histogram(), Histogram(), Histogram()
    for number, seconds in enumerate([0.01, 0.5, 0.5, 3.0, 2000.0]):
        (one, other)[number % 2].add(seconds)
        both.add(seconds)
    one.merge(other.steps, other.total)
    assert one == both


def test_the_export_counts_up_to_each_bound_and_ends_with_all():
    histogram = Histogram()
    for seconds in (0.0005, 0.05, 0.05, 20.0, 5000.0):
        histogram.add(seconds)
    rows = dict(histogram.exported())
    assert list(rows.values()) == sorted(rows.values())
    assert rows[0.001] == 1 and rows[math.inf] == 5
    assert [count for bound, count in rows.items() if bound == pytest.approx(0.1)] == [3]
    assert [count for bound, count in rows.items() if bound == pytest.approx(1000)] == [4]
    assert len(rows) == 26
