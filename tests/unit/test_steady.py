"""Steady time goes on at its own pace whatever the machine's clock does."""

import time

import pytest

from cluster.steady import SteadyClock


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_is_not_seen(monkeypatch, jump):
    clock = SteadyClock()
    before = clock()
    assert before == pytest.approx(time.time(), abs=1.0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert 0 <= clock() - before < 60
