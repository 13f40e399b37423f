"""The snapshot's rows are made anew only where something changed, and are what a whole compilation would give."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import compiling, observation, plan, publisher, reading, records, snapshot, state

NOWHERE = observation.Cluster()


class World:
    """Rows of a store that a test changes by hand; what would be compiled is counted."""

    def __init__(self, make):
        self.make = make
        self.wanted, self.keys, self.replicas = {}, {}, {}
        self.observed = NOWHERE
        self.compiled = []
        self.rows = compiling.Rows(self.compile)
        self.shown = snapshot.Snapshot()

    def compile(self, item, rows, observed):
        self.compiled.append(item.endpoint.id)
        names = [state.application_of(item.endpoint, number) for number in sorted({item.endpoint.target, item.endpoint.serving or 1})]
        status = state.Status("running" if any(name in observed.applications for name in names) else "scaledToZero")
        replicas = [row for name in names for row in rows.replicas.get(name, ())]
        return snapshot.Endpoint(item.endpoint.id, item.endpoint.namespace, item.endpoint.name, status.state, reason=str(len(replicas)))

    def put(self, number, **columns):
        endpoint = self.make.endpoint(id=f"e{number}", name=f"chat-{number}", **columns)
        self.wanted[endpoint.id] = plan.Wanted(endpoint, {})

    def key(self, owner, *numbers):
        identity = f"e{owner}" if owner else ""
        self.keys[identity] = tuple(
            records.Key(f"k{owner}-{number}", f"d{owner}-{number}", "e" if owner else "p", "admin", endpoint_id=identity or None)
            for number in numbers
        )

    def run(self, *numbers):
        names = [specs_name(number) for number in numbers]
        self.observed = observation.Cluster({name: observation.Application(name, "running") for name in names})

    def changes(self):
        self.compiled.clear()
        reading_now = reading.Reading(dict(self.wanted), dict(self.keys), dict(self.replicas))
        endpoints, keys = self.rows.changes(reading_now, self.observed, self.observed.applications)
        self.shown = snapshot.apply(self.shown, snapshot.Delta(self.shown.version, self.shown.version + 1, endpoints, keys))
        return endpoints, keys

    def whole(self):
        """What a compilation of everything gives."""
        now = reading.Reading(self.wanted, self.keys, self.replicas)
        rows = [self.compile(item, now, self.observed) for item in self.wanted.values()]
        paths = {item.endpoint.id: item.endpoint.path for item in self.wanted.values()}
        keys = publisher.compile_keys([key for keys in self.keys.values() for key in keys], paths)
        return {row.path: row for row in rows}, keys


def specs_name(number):
    return f"admin--chat-{number}--r1"


@pytest.fixture
def world(make):
    return World(make)


def test_only_what_changed_is_compiled(world):
    for number in range(1, 6):
        world.put(number)
        world.key(number, 1)
    world.changes()
    world.put(3, awake=False)
    endpoints, keys = world.changes()
    assert world.compiled == ["e3"]
    assert (endpoints, keys) == ({}, {})  # it says the same as before
    world.key(2, 1, 2)
    endpoints, keys = world.changes()
    assert (world.compiled, endpoints, set(keys)) == ([], {}, {"d2-2"})


def test_what_runs_is_looked_at_each_time_and_once_more_when_it_is_gone(world):
    world.put(1)
    world.put(2)
    world.changes()
    world.run(1)
    assert list(world.changes()[0]) == ["admin/chat-1"]
    assert world.changes()[0] == {}
    assert world.compiled == ["e1"]
    world.run()
    assert world.changes()[0]["admin/chat-1"].state == "scaledToZero"
    world.changes()
    assert world.compiled == []


def test_an_endpoint_that_goes_takes_its_keys_along(world):
    world.put(1)
    world.key(1, 1)
    world.changes()
    del world.wanted["e1"]
    assert world.changes() == ({"admin/chat-1": None}, {"d1-1": None})


def test_a_key_that_is_revoked_is_removed(world):
    world.put(1)
    world.key(1, 1, 2)
    world.changes()
    one, two = world.keys["e1"]
    world.keys["e1"] = (one, dataclasses.replace(two, status="revoked"))
    assert world.changes() == ({}, {"d1-2": None})


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("gone"), st.integers(1, 4)),
    st.tuples(st.just("keys"), st.integers(0, 4), st.lists(st.integers(1, 3), unique=True)),
    st.tuples(st.just("run"), st.lists(st.integers(1, 4), unique=True)),
    st.tuples(st.just("look")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_the_changes_add_up_to_what_a_whole_compilation_gives(make, steps):
    world = World(make)
    for kind, *rest in steps:
        match kind:
            case "put":
                world.put(rest[0], awake=rest[1])
            case "gone":
                world.wanted.pop(f"e{rest[0]}", None)
            case "keys":
                world.key(rest[0], *rest[1])
            case "run":
                world.run(*rest[0])
            case "look":
                world.changes()
    world.changes()
    endpoints, keys = world.whole()
    assert world.shown.endpoints == endpoints
    assert world.shown.keys == keys
