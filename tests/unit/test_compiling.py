"""The snapshot's rows are made anew only where something changed, and are what a whole compilation would give."""

import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import compiling, granting, observation, plan, publisher, reading, records, snapshot, state

NOWHERE = observation.Cluster()


class World:
    """Rows of a store that a test changes by hand; what would be compiled is counted."""

    def __init__(self, make):
        self.make = make
        self.wanted, self.keys, self.replicas = {}, {}, {}
        self.people = granting.Membership()
        self.observed = NOWHERE
        self.compiled = []
        self.rows = compiling.Rows(self.compile)
        self.shown = snapshot.Snapshot()

    def compile(self, item, rows, observed):
        self.compiled.append(item.endpoint.id)
        names = [state.application_of(item.endpoint, number) for number in sorted({item.endpoint.target, item.endpoint.serving or 1})]
        status = state.Status("running" if any(name in observed.applications for name in names) else "scaledToZero")
        replicas = [row for name in names for row in rows.replicas.get(name, ())]
        tenant = rows.people.tenant_of(item.endpoint.namespace)
        place = (item.endpoint.id, item.endpoint.namespace, item.endpoint.name)
        return snapshot.Endpoint(*place, status.state, reason=str(len(replicas)), tenant=tenant)

    def put(self, number, **columns):
        endpoint = self.make.endpoint(id=f"e{number}", name=f"chat-{number}", **columns)
        self.wanted[endpoint.id] = plan.Wanted(endpoint, {})

    def key(self, owner, *numbers):
        identity = f"e{owner}"
        self.keys[identity] = tuple(
            records.Key(f"k{owner}-{number}", f"d{owner}-{number}", "e", "admin", endpoint_id=identity) for number in numbers
        )

    def platform_key(self, name, *numbers):
        self.keys[granting.of_user(name)] = tuple(
            records.Key(f"p{name}-{number}", f"d{name}-{number}", "p", "admin", owner=name, role="operator") for number in numbers
        )

    def user(self, name, **columns):
        row = records.User(name, "admin", "admin", **columns)
        self.people = granting.Membership(self.people.namespaces, {**self.people.users, name: row})

    def namespace(self, name, tenant):
        """None: it goes."""
        rows = {one: row for one, row in self.people.namespaces.items() if one != name}
        self.people = granting.Membership(rows | ({name: records.Namespace(name, tenant)} if tenant else {}), self.people.users)

    def run(self, *numbers):
        names = [specs_name(number) for number in numbers]
        self.observed = observation.Cluster({name: observation.Application(name, "running") for name in names})

    def changes(self):
        self.compiled.clear()
        reading_now = reading.Reading(dict(self.wanted), dict(self.keys), dict(self.replicas), self.people)
        endpoints, keys, grants = self.rows.changes(reading_now, self.observed, self.observed.applications)
        self.shown = snapshot.apply(self.shown, snapshot.Delta(self.shown.version, self.shown.version + 1, endpoints, keys, grants))
        return endpoints, keys, grants

    def whole(self):
        """What a compilation of everything gives."""
        now = reading.Reading(self.wanted, self.keys, self.replicas, self.people)
        rows = [self.compile(item, now, self.observed) for item in self.wanted.values()]
        paths = {item.endpoint.id: item.endpoint.path for item in self.wanted.values()}
        keys = publisher.compile_keys([key for keys in self.keys.values() for key in keys], paths, self.people)
        return {row.path: row for row in rows}, keys, granting.Grants().changes(self.people).grants


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
    endpoints, keys, _ = world.changes()
    assert world.compiled == ["e3"]
    assert (endpoints, keys) == ({}, {})  # it says the same as before
    world.key(2, 1, 2)
    endpoints, keys, _ = world.changes()
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
    assert world.changes() == ({"admin/chat-1": None}, {"d1-1": None}, {})


def test_a_key_that_is_revoked_is_removed(world):
    world.put(1)
    world.key(1, 1, 2)
    world.changes()
    one, two = world.keys["e1"]
    world.keys["e1"] = (one, dataclasses.replace(two, status="revoked"))
    assert world.changes() == ({}, {"d1-2": None}, {})


def test_a_change_of_one_user_costs_its_keys_and_nothing_else(world, monkeypatch):
    for number in range(1, 4):
        world.put(number)
    world.namespace("admin", "admin")
    for name in ("ann", "bob"):
        world.user(name, role="member")
        world.platform_key(name, 1, 2)
    _, keys, grants = world.changes()
    assert {(row.tenant, row.role, row.scope) for row in keys.values()} == {("admin", "member", "t:admin")}
    assert (len(keys), grants) == (4, {"t:admin": ("admin",)})
    compiled = []
    compile_keys = publisher.compile_keys
    monkeypatch.setattr(publisher, "compile_keys", lambda rows, *more: compiled.append(len(rows)) or compile_keys(rows, *more))
    world.compiled.clear()
    world.user("ann", role="member", active=False)
    assert world.changes() == ({}, {"dann-1": None, "dann-2": None}, {})
    assert (world.compiled, compiled) == ([], [2])


def test_a_user_with_some_namespaces_has_a_grant_of_its_own_that_follows_what_there_is(world):
    world.namespace("admin", "admin")
    world.namespace("lab", "admin")
    world.user("ann", role="member", namespaces=("lab", "later"))
    world.platform_key("ann", 1)
    _, keys, grants = world.changes()
    assert keys["dann-1"].scope == "u:ann"
    assert grants == {"t:admin": ("admin", "lab"), "u:ann": ("admin", "lab")}
    world.namespace("later", "admin")
    world.namespace("foreign", "rival")
    grants = world.changes()[2]
    assert grants == {"t:admin": ("admin", "lab", "later"), "u:ann": ("admin", "lab", "later"), "t:rival": ("foreign",)}
    world.namespace("foreign", None)
    world.user("ann", role="member", active=False)
    assert world.changes()[2] == {"t:rival": None, "u:ann": None}
    world.user("ann", role="member")
    endpoints, keys, grants = world.changes()
    assert (endpoints, keys["dann-1"].scope, grants) == ({}, "t:admin", {})


def test_an_operators_key_calls_what_its_own_tenant_may(world):
    world.namespace("admin", "admin")
    world.namespace("team", "team")
    world.user("root", role="operator")
    world.platform_key("root", 1)
    row = world.changes()[1]["droot-1"]
    assert (row.role, row.scope, world.shown.grants[row.scope]) == ("operator", "t:admin", ("admin",))


def test_endpoints_of_a_namespace_are_told_again_when_its_tenant_becomes_known(world):
    world.put(1)
    world.key(1, 1)
    world.changes()
    world.namespace("admin", "team")
    endpoints, keys, _ = world.changes()
    assert (endpoints["admin/chat-1"].tenant, keys["d1-1"].tenant) == ("team", "team")


STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("gone"), st.integers(1, 4)),
    st.tuples(st.just("keys"), st.integers(1, 4), st.lists(st.integers(1, 3), unique=True)),
    st.tuples(st.just("platform keys"), st.sampled_from(["ann", "bob"]), st.lists(st.integers(1, 3), unique=True)),
    st.tuples(st.just("user"), st.sampled_from(["ann", "bob"]), st.booleans(), st.sampled_from([(), ("lab",)])),
    st.tuples(st.just("namespace"), st.sampled_from(["admin", "lab"]), st.sampled_from(["admin", "rival", None])),
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
            case "platform keys":
                world.platform_key(rest[0], *rest[1])
            case "user":
                world.user(rest[0], active=rest[1], namespaces=rest[2])
            case "namespace":
                world.namespace(*rest)
            case "run":
                world.run(*rest[0])
            case "look":
                world.changes()
    world.changes()
    endpoints, keys, grants = world.whole()
    assert world.shown.endpoints == endpoints
    assert world.shown.keys == keys
    assert world.shown.grants == grants


def test_an_endpoint_that_cannot_be_compiled_holds_up_no_other_and_is_tried_again(make, caplog):
    world, broken = World(make), True
    good = world.rows._compile

    def compile_row(item, rows, observed):
        if broken and item.endpoint.id == "e1":
            raise KeyError("a field of another version")
        return good(item, rows, observed)

    world.rows._compile = compile_row
    world.put(1)
    world.put(2)
    world.key(1, 1)
    assert list(world.changes()[0]) == ["admin/chat-2"] and "admin/chat-1" in caplog.text
    broken = False
    endpoints, keys, _ = world.changes()
    assert list(endpoints) == ["admin/chat-1"] and list(keys) == ["d1-1"]
    assert world.changes() == ({}, {}, {})
