"""What HAProxy should hold, and the commands that get it there."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import snapshot
from gateway import access, program

FILE = {name: f"/maps/{name}.map" for name in program.MAPS}


def replica(name: str = "r1", **fields) -> snapshot.Replica:
    return snapshot.Replica(**{"id": name, "revision": 1, "host": "127.0.0.1", "port": 9000, "max_concurrency": 8, **fields})


def endpoint(name: str, *replicas: snapshot.Replica, **fields) -> snapshot.Endpoint:
    given = {"id": name, "namespace": "acme", "name": name, "state": "running", "engine_secret": "s3cret", "replicas": replicas, **fields}
    return snapshot.Endpoint(**given)


def world(*endpoints: snapshot.Endpoint, **keys: snapshot.Key) -> snapshot.Snapshot:
    return snapshot.Snapshot(1, {row.path: row for row in endpoints}, keys)


def test_only_endpoints_with_replicas_take_a_slot():
    made = program.program(world(endpoint("one", replica()), endpoint("zero")), program.Program(), 4)
    assert made.maps["endpoints"] == {
        "acme/one": "s00000|authenticated|0|0|s3cret|/v1/chat/completions",
        "acme/zero": "-|authenticated|0|0|s3cret|/v1/chat/completions",
    }
    assert made.maps["secrets"] == {"s00000": "s3cret"}
    assert list(made.servers) == ["s00000"]


def test_a_key_is_one_map_entry_with_its_powers_and_limits():
    key = snapshot.Key("abc", "e", "acme", "acme/one", 60, 4, tenant="acme-inc")
    assert program.program(world(d1=key), program.Program(), 1).maps["keys"] == {"d1": "abc|e|acme|acme/one|acme-inc||0|60|4|60|4"}


@pytest.mark.parametrize(
    ("fields", "mark"),
    [({}, "p"), ({"role": "member"}, "p"), ({"role": "viewer"}, "V"), ({"expires_at": 9.5}, "P"), ({"kind": "e", "expires_at": 9.5}, "E")],
)
def test_a_key_that_the_usual_way_must_not_take_has_another_mark(fields, mark):
    key = snapshot.Key(**{"id": "abc", "kind": "p", "namespace": "acme", "tenant": "t", "scope": "u:ann", **fields})
    entry = program.key_map({"d1": key})["d1"]
    assert entry.split("|")[1] == mark
    assert entry.split("|")[6] == str(int(fields.get("expires_at", 0)))
    assert access.Identity.parse(entry) == access.Identity.of(key)


@pytest.mark.parametrize("fields", [{"scope": "u:a b"}, {"tenant": "t;shutdown"}, {"scope": "u:a|b"}, {"tenant": "t\n"}])
def test_a_key_that_the_edge_cannot_hold_is_left_out_alone(fields):
    good = snapshot.Key("good", "p", "acme")
    assert set(program.key_map({"d1": snapshot.Key("bad", "p", "acme", **fields), "d2": good})) == {"d2"}


def test_of_every_limit_each_gateway_enforces_its_part_rounded_up():
    key = snapshot.Key("abc", "p", "acme", requests_per_minute=10, concurrency=3)
    row = endpoint("one", requests_per_minute=7)
    made = program.program(world(row, d1=key), program.Program(), 1, gateways=2).maps
    assert made["keys"]["d1"].endswith("|5|2|10|3")
    assert made["endpoints"]["acme/one"] == "-|authenticated|l0|0|s3cret|/v1/chat/completions||4|0|7|0"


def test_an_endpoint_with_limits_is_marked_and_so_are_its_members():
    members = (snapshot.Member("big"), snapshot.Member("small"))
    row = endpoint("team", members=members, requests_per_minute=6, concurrency=2)
    rows = program.program(world(row, endpoint("own", own_routes=True, concurrency=1)), program.Program(), 4).maps["endpoints"]
    assert rows["acme/team"] == "-|authenticated|m0|0|s3cret|/v1/chat/completions|acme/team:big|6|2|6|2"
    assert rows["acme/team:small"] == "-|authenticated|l0|0|s3cret|/v1/chat/completions||6|2|6|2"
    assert rows["acme/own"] == "-|authenticated|l0|0|s3cret|/v1/chat/completions|1|0|1|0|1"


def test_grants_shares_and_blocks_are_map_entries():
    row = endpoint("one", shared_with=("globex", "*"))
    now = dataclasses.replace(
        world(row),
        grants={"u:ann": ("lab", "shop"), "u:a b": ("x",)},
        blocks={
            "k:abc": snapshot.Block("token_limit", "tokensPerMinute", 1000, 1764.2),
            "e:acme/one": snapshot.Block("budget_exceeded", "budget", 12.5, 0),
        },
    )
    maps = program.program(now, program.Program(), 1).maps
    assert maps["grants"] == {"u:ann|lab": "1", "u:ann|shop": "1"}
    assert maps["shares"] == {"acme/one|globex": "1", "acme/one|*": "1"}
    assert maps["blocks"] == {"abc": "1765|token_limit|1000|minute", "acme/one": "0|budget_exceeded|12.5|period"}


def test_an_endpoint_keeps_its_slot_when_others_come_and_go():
    held = program.program(world(endpoint("bbb", replica())), program.Program(), 4)
    later = program.program(world(endpoint("aaa", replica()), endpoint("bbb", replica())), held, 4)
    assert later.assigned == {"acme/aaa": "s00001", "acme/bbb": "s00000"}


def test_each_member_has_a_slot_and_the_endpoint_a_marked_entry():
    members = (snapshot.Member("big"), snapshot.Member("small", "embed", "/v1/embeddings"))
    row = endpoint("team", replica(member="big"), replica(id="r2", member="small"), members=members)
    made = program.program(world(row), program.Program(), 4)
    assert made.maps["endpoints"] == {
        "acme/team:big": "s00000|authenticated|0|108|s3cret|/v1/chat/completions",
        "acme/team:small": "s00001|authenticated|0|108|s3cret|/v1/embeddings",
        "acme/team": "s00000|authenticated|m0|108|s3cret|/v1/chat/completions|acme/team:big",
    }
    assert {said: slot for said, slot in made.maps["members"].items() if slot == "acme/team:small"} == dict.fromkeys(
        ("acme/team|small", "acme/team|team:small", "acme/team|acme/team:small"), "acme/team:small"
    )
    assert {slot: list(rows) for slot, rows in made.servers.items()} == {"s00000": ["r1"], "s00001": ["r2"]}
    again = program.program(world(row), made, 4)
    assert program.diff(made, again, dict.fromkeys(program.MAPS, "x")) == []
    fewer = program.program(world(dataclasses.replace(row, members=members[:1])), made, 4)
    assert "del map x acme/team:small" in program.diff(made, fewer, dict.fromkeys(program.MAPS, "x"))
    assert program.leftovers(made, fewer) == [("s00001", "r2")]


def test_a_slot_with_servers_left_in_it_goes_to_nobody_else():
    held = program.program(world(endpoint("old", replica())), program.Program(), 2)
    wanted = program.program(world(endpoint("new", replica())), held, 2)
    assert wanted.assigned == {"acme/new": "s00001"}
    after = program.reached(held, wanted)
    assert program.leftovers(after, wanted) == [("s00000", "r1")]
    assert after.servers["s00000"]["r1"].draining


def test_too_few_slots_say_how_many_are_needed():
    with pytest.raises(program.OutOfSlots) as short:
        program.program(world(*(endpoint(f"e{number}", replica()) for number in range(5))), program.Program(), 2)
    assert short.value.needed == 5


def test_commands_come_in_an_order_that_never_exposes_an_endpoint_without_its_secret():
    wanted = program.program(world(endpoint("one", replica()), d1=snapshot.Key("abc", "p", "acme")), program.Program(), 2)
    assert program.diff(program.Program(), wanted, FILE) == [
        "add map /maps/keys.map d1 abc|p|acme||||0|0|0|0|0",
        "add map /maps/secrets.map s00000 s3cret",
        "add server s00000/r1 127.0.0.1:9000 check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down "
        "pool-purge-delay 2s maxconn 8 weight 100",
        "enable server s00000/r1",
        "enable health s00000/r1",
        "add map /maps/endpoints.map acme/one s00000|authenticated|0|0|s3cret|/v1/chat/completions",
    ]


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({"weight": 10}, "set server s00000/r1 weight 10"),
        ({"max_concurrency": 9}, "set maxconn server s00000/r1 9"),
        ({"port": 9001}, "set server s00000/r1 addr 127.0.0.1 port 9001"),
        ({"draining": True}, "set server s00000/r1 state drain"),
    ],
)
def test_a_changed_replica_is_one_command(change, command):
    held = program.program(world(endpoint("one", replica())), program.Program(), 1)
    wanted = program.program(world(endpoint("one", replica(**change))), held, 1)
    assert program.diff(held, wanted, FILE) == [command]


def test_a_replica_that_left_is_drained_once_and_its_slot_kept():
    held = program.program(world(endpoint("one", replica("r1"), replica("r2", port=9001))), program.Program(), 1)
    wanted = program.program(world(endpoint("one", replica("r2", port=9001))), held, 1)
    assert program.diff(held, wanted, FILE) == ["set server s00000/r1 state drain"]
    assert program.diff(program.reached(held, wanted), wanted, FILE) == []


def test_a_limit_that_haproxy_does_not_tell_is_set_again():
    held = program.program(world(endpoint("one", replica())), program.Program(), 1)
    forgotten = program.Program(held.maps, {"s00000": {"r1": dataclasses.replace(held.servers["s00000"]["r1"], max_concurrency=None)}})
    assert program.diff(forgotten, held, FILE) == ["set maxconn server s00000/r1 8"]


def test_networks_inside_others_are_allowed_too():
    rows = [
        endpoint("one", type="private", networks=("10.0.0.0/8",)),
        endpoint("two", type="private", networks=("10.1.0.0/16", "fd00::/8")),
        endpoint("three", type="authenticated", networks=("1.2.3.4/32",)),
    ]
    maps = program.program(world(*rows), program.Program(), 1).maps
    assert maps["nets"] == {"10.0.0.0/8": "10.0.0.0/8", "10.1.0.0/16": "10.1.0.0/16", "fd00::/8": "fd00__/8"}
    assert set(maps["endpoint_nets"]) == {"acme/one|10.0.0.0/8", "acme/one|10.1.0.0/16", "acme/two|10.1.0.0/16", "acme/two|fd00__/8"}


@pytest.mark.parametrize("fields", [{"engine_secret": "a|b c"}, {"type": "private", "networks": ("everywhere",)}])
def test_an_endpoint_that_the_edge_cannot_hold_is_left_out_alone(fields):
    bad = endpoint("bad", **fields)
    assert set(program.program(world(bad, endpoint("good")), program.Program(), 1).maps["endpoints"]) == {"acme/good"}


def test_a_default_route_that_does_not_exist_falls_back():
    made = program.program(world(endpoint("one", default_route="/metrics")), program.Program(), 1)
    assert made.maps["endpoints"]["acme/one"].endswith("|/v1/chat/completions")


def test_a_reload_gives_draining_servers_no_weight():
    held = program.program(world(endpoint("one", replica(draining=True))), program.Program(), 1)
    (line,) = program.static_lines(held)["s00000"]
    assert line.startswith("server r1 127.0.0.1:9000 ")
    assert line.endswith(" weight 0")


names = st.sampled_from(["aaa", "bbb", "ccc", "ddd"])
rows = st.dictionaries(names, st.lists(st.integers(1, 3), max_size=3, unique=True))


@given(st.lists(rows, min_size=1, max_size=6))
def test_whatever_comes_after_whatever_one_diff_reaches_it_and_slots_are_never_shared(versions):
    held = program.Program()
    for version in versions:
        now = world(*(endpoint(name, *(replica(f"{name}-{number}", port=number) for number in given)) for name, given in version.items()))
        before = held.assigned
        wanted = program.program(now, held, 16)
        held = program.reached(held, wanted)
        assert program.diff(held, wanted, FILE) == []
        assert len(set(held.assigned.values())) == len(held.assigned)
        for path, slot in held.assigned.items():
            assert before.get(path, slot) == slot or not held.servers.get(before[path])
            owners = {name.rsplit("-", 1)[0] for name in held.servers.get(slot, {})}
            assert owners <= {path.removeprefix("acme/")}


KEYS = st.dictionaries(
    st.sampled_from(["d1", "d2", "d3", "d4"]), st.builds(snapshot.Key, st.sampled_from(["k1", "k2"]), st.just("p"), st.just("acme"))
)


@given(KEYS, KEYS)
def test_changing_keys_by_their_digests_is_the_same_as_comparing_all(old, new):
    held = program.key_map(old)
    commands = program.change_keys(held, new, {*old, *new}, "keys.map")
    assert held == program.key_map(new)
    whole = program.diff(program.Program({"keys": program.key_map(old)}), program.Program({"keys": held}), {"keys": "keys.map"})
    assert sorted(commands) == sorted(whole)
    added = [number for number, command in enumerate(commands) if not command.startswith("del")]
    assert all(not command.startswith("del") for command in commands[added[0] :]) if added else True


NAMES = st.sampled_from(["one", "two", "three"])
ROWS = st.dictionaries(NAMES, st.tuples(st.sampled_from(["public", "authenticated"]), st.booleans()))


@given(st.lists(ROWS, max_size=6))
def test_what_is_known_from_before_changes_nothing_but_the_time_it_takes(steps):
    known: program.Known = {}
    held = bare = program.Program()
    for step in steps:
        now = world(*(endpoint(name, *([replica()] if up else []), type=kind) for name, (kind, up) in step.items()))
        wanted = program.program(now, held, 8, known=known)
        plain = program.program(now, bare, 8)
        assert wanted == plain
        held, bare = program.reached(held, wanted), program.reached(bare, plain)


def test_a_server_of_the_users_own_has_all_routes_and_keeps_predict_unless_it_names_another():
    rows = endpoint("one", own_routes=True, default_route=""), endpoint("two", own_routes=True, default_route="/run")
    made = program.program(world(*rows), program.Program(), 1).maps["endpoints"]
    assert made == {"acme/one": "-|authenticated|0|0|s3cret||1", "acme/two": "-|authenticated|0|0|s3cret|/run|1"}
