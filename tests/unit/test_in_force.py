"""An answer to a change means that the gateways have it, as far as they live."""

import threading

import pytest

from cluster.in_force import GATEWAY_GONE_S, GATEWAY_SILENT_S, InForce


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def force(clock):
    return InForce(clock)


def publish(force, version):
    force.published(force.count, version)


def test_without_changes_nobody_waits(force):
    assert force.wait(0)


def test_a_change_that_is_not_published_is_not_in_force(force):
    force.hinted()
    assert not force.wait(0)
    publish(force, 7)
    assert force.wait(0)  # there is no gateway to wait for


def test_every_living_gateway_must_have_applied_it(force):
    for name in ("one", "two"):
        force.applied(name, 6)
    force.hinted()
    publish(force, 7)
    force.applied("one", 7)
    assert not force.wait(0)
    force.applied("two", 8)
    assert force.wait(0)


def test_a_gateway_that_fell_silent_is_not_waited_for(force, clock):
    force.applied("dead", 6)
    force.hinted()
    publish(force, 7)
    clock.now += GATEWAY_SILENT_S
    assert force.wait(0)


def test_what_was_published_before_the_change_does_not_count(force):
    count = force.count
    force.hinted()
    force.published(count, 7)
    assert not force.wait(0)


def test_a_waiting_thread_goes_on_when_the_last_gateway_has_it():
    force = InForce()
    force.applied("one", 1)
    force.hinted()
    publish(force, 2)
    found = []
    thread = threading.Thread(target=lambda: found.append(force.wait(30)))
    thread.start()
    force.applied("one", 2)
    thread.join(10)
    assert found == [True]


def test_gateways_are_those_heard_of_within_a_minute_and_none_before_all_could_say_so(force, clock):
    assert force.applied("one", 1)
    assert not force.applied("one", 2)
    assert force.gateways() == ()
    clock.now += GATEWAY_SILENT_S
    assert force.applied("two", 2)
    assert force.gateways() == ("one", "two")
    clock.now += GATEWAY_GONE_S - 1
    assert not force.applied("two", 3)
    clock.now += 1
    assert force.gateways() == ("two",)
    assert force.applied("one", 3)
