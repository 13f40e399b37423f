"""Keys of endpoints: their limits, their expiry and their replacement, over the API and in what the edge is told."""

import dataclasses
import datetime

import pytest
from support.api import refused

from cluster import compiling, expiry, limits, observation, plan, reading, records, snapshot

NOW = 1_800_000_000.0
LIMITS = {
    "requestsPerMinute": 60,
    "tokensPerMinute": 1000,
    "tokensPerDay": 5_000_000_000,
    "concurrency": 4,
    "budget": 12.5,
    "budgetPeriod": "week",
}
NONE = limits.Limits().wire()


def iso(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.fixture
def keys(api):
    """Calls below the keys of an endpoint, at a time that the test sets."""
    api.now = NOW
    api.clock = lambda: api.now
    api.first = api.create()["apiKey"]

    def call(method="GET", path="", body=None, **options):
        return api.call(method, f"/demo-chat/keys{path}", body, **options)

    call.api = api
    call.make = lambda **fields: call("POST", "", fields).json()
    call.show = lambda key: call("GET", f"/{key['id']}").json()
    call.told = lambda: [event["kind"] for event in api.call("GET", "/demo-chat/events").json()["items"]]
    return call


def of(answer, names):
    return {name: answer[name] for name in names}


def test_a_key_has_every_limit_that_there_is(keys):
    assert set(LIMITS) == {field.alias for field in limits.Limits.model_fields.values()}
    made = keys.make(description="mine", **LIMITS)
    assert of(keys.show(made), LIMITS) == LIMITS
    assert of(keys.make(), NONE) == NONE


def test_what_is_edited_changes_and_the_rest_of_a_key_stays(keys):
    made = keys.make(description="mine", **LIMITS)
    edited = keys("PATCH", f"/{made['id']}", {"budget": 20, "tokensPerDay": 0}).json()
    assert of(edited, LIMITS) == LIMITS | {"budget": 20.0, "tokensPerDay": 0}
    assert edited["description"] == "mine"
    keys.api.now += 5
    assert keys("PATCH", f"/{made['id']}", {}).json() == edited
    assert keys.told() == ["create", "key_added", "key_edited"]


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        ({"expiresAt": iso(NOW + 60)}, NOW + 60),
        ({"expiresAt": "2030-02-03T04:05:06Z"}, 1_896_321_906),
        ({"expiresAt": NOW + 1}, NOW + 1),
        ({"expiresInSeconds": 3600}, NOW + 3600),
        ({"expiresAt": None}, None),
        ({}, None),
    ],
)
def test_a_key_ends_when_it_was_said_to(keys, given, ends):
    assert keys.make(**given)["expiresAt"] == (None if ends is None else iso(ends))


@pytest.mark.parametrize(
    "given",
    [
        {"expiresAt": iso(NOW - 1)},
        {"expiresAt": NOW},
        {"expiresAt": "tomorrow"},
        {"expiresAt": "2030-02-03T04:05:06"},
        {"expiresAt": "2030-02-30T04:05:06Z"},
        {"expiresAt": True},
        {"expiresAt": 1e300},
        {"expiresAt": {}},
        {"expiresInSeconds": 0},
        {"expiresInSeconds": 1e12},
        {"expiresInSeconds": "30d"},
        {"expiresAt": NOW + 9, "expiresInSeconds": 9},
        {"budgetPeriod": "year"},
        {"tokensPerDay": -1},
        {"status": "active"},
    ],
)
def test_an_expiry_or_limit_that_cannot_be_is_refused(keys, given):
    made = keys.make()
    refused(keys("POST", "", given), 400, "invalid_request")
    refused(keys("PATCH", f"/{made['id']}", given), 400, "invalid_request")


def test_a_key_past_its_expiry_is_never_called_active(keys):
    made = keys.make(expiresInSeconds=10)
    keys.api.now += 9.9
    assert keys.show(made)["status"] == "active"
    keys.api.now += 0.1
    assert keys.show(made)["status"] == "expired"
    assert [item["status"] for item in keys().json()["items"]] == ["active", "expired"]


def test_an_expired_key_that_is_given_more_time_works_again(keys):
    made = keys.make(expiresInSeconds=10)
    keys.api.store.update_key(made["id"], {"status": "expired"})
    keys.api.now += 20
    assert keys("PATCH", f"/{made['id']}", {"description": "late"}).json()["status"] == "expired"
    assert keys("PATCH", f"/{made['id']}", {"expiresInSeconds": 10}).json()["status"] == "active"
    assert keys("PATCH", f"/{made['id']}", {"expiresAt": None}).json()["expiresAt"] is None


def test_a_revoked_key_is_neither_edited_nor_rotated(keys):
    made = keys.make()
    keys("DELETE", f"/{made['id']}")
    refused(keys("PATCH", f"/{made['id']}", {"expiresInSeconds": 10}), 409, "conflict")
    refused(keys("POST", f"/{made['id']}/rotate"), 409, "conflict")


def test_a_rotated_key_and_its_successor_both_work_during_the_overlap(keys):
    old = keys.make(description="mine", expiresInSeconds=86_400, **LIMITS)
    keys.api.now += 1000
    new = keys("POST", f"/{old['key']}/rotate", {"overlapSeconds": 100}).json()
    assert new["key"].startswith(f"moor_e_{new['id']}_")
    assert of(new, LIMITS) == LIMITS and new["description"] == "mine"
    assert (new["expiresAt"], new["replacedBy"], new["status"]) == (iso(NOW + 1000 + 86_400), None, "active")
    assert (keys.show(old)["expiresAt"], keys.show(old)["replacedBy"]) == (iso(NOW + 1100), new["id"])
    keys.api.now += 99
    assert keys.show(old)["status"] == "active"
    keys.api.now += 1
    assert (keys.show(old)["status"], keys.show(new)["status"]) == ("expired", "active")
    assert keys.told() == ["create", "key_added", "key_rotated"]


def test_without_an_overlap_the_old_key_ends_at_once_and_by_default_it_lives_for_an_hour(keys):
    one, other = keys.make(), keys.make()
    keys("POST", f"/{one['id']}/rotate", {"overlapSeconds": 0})
    assert keys.show(one)["status"] == "expired"
    assert keys.api.store.key(one["id"]).status == "expired"
    keys("POST", f"/{other['id']}/rotate")
    assert keys.show(other)["expiresAt"] == iso(NOW + 3600)


def test_a_rotation_does_not_lengthen_the_life_of_the_old_key_and_may_say_another_expiry(keys):
    old = keys.make(expiresInSeconds=60)
    new = keys("POST", f"/{old['id']}/rotate", {"expiresAt": None}).json()
    assert new["expiresAt"] is None
    assert keys.show(old)["expiresAt"] == iso(NOW + 60)


@pytest.mark.parametrize("body", [{"overlapSeconds": -1}, {"overlapSeconds": 90 * 86_400 + 1}, {"overlap": 5}, {"expiresAt": NOW - 1}])
def test_a_rotation_that_cannot_be_is_refused_and_makes_no_key(keys, body):
    made = keys.make()
    refused(keys("POST", f"/{made['id']}/rotate", body), 400, "invalid_request")
    assert len(keys().json()["items"]) == 2


def test_the_first_key_is_not_rotated_and_a_replaced_key_names_its_successor(keys):
    told = refused(keys("POST", f"/{keys.api.first['id']}/rotate"), 409, "conflict")
    assert "add another key" in told
    old = keys.make()
    new = keys("POST", f"/{old['id']}/rotate").json()
    assert new["id"] in refused(keys("POST", f"/{old['id']}/rotate"), 409, "conflict")


def test_a_rotation_that_is_retried_makes_one_key(keys):
    old = keys.make()
    made = [keys("POST", f"/{old['id']}/rotate", headers={"idempotency-key": "once"}).json() for _ in range(2)]
    assert made[0] == made[1]
    assert len(keys().json()["items"]) == 3


# What the edge is told


class Edge:
    """The snapshot's keys of one endpoint, compiled at a time that the test sets."""

    def __init__(self, make, *keys):
        self.now = NOW
        self.rows = compiling.Rows(lambda item, *_: snapshot.Endpoint(item.endpoint.id, "admin", "demo-chat", "running"), lambda: self.now)
        self.wanted = {"e1": plan.Wanted(make.endpoint(), {})}
        self.keys = {"e1": keys}

    def changes(self):
        return self.rows.changes(reading.Reading(self.wanted, self.keys, {}), observation.Cluster(), ())[1]


def key(identity, **fields):
    return records.Key(identity, f"digest {identity}", "e", "admin", endpoint_id="e1", **fields)


def test_a_key_leaves_the_snapshot_when_its_time_is_over_though_no_row_changed(make):
    edge = Edge(make, key("a"), key("b", expires_at=NOW + 10), key("c", expires_at=NOW + 20))
    assert set(edge.changes()) == {"digest a", "digest b", "digest c"}
    edge.now += 10
    assert edge.changes() == {"digest b": None}
    assert [row.id for row in edge.rows.ended()] == ["b"]
    assert edge.changes() == {}
    edge.now += 10
    assert edge.changes() == {"digest c": None}


def test_a_key_that_was_given_more_time_stays_in_the_snapshot(make):
    edge = Edge(make, key("b", expires_at=NOW + 10))
    edge.changes()
    edge.keys = {"e1": (key("b", expires_at=NOW + 30),)}
    assert edge.changes()["digest b"].expires_at == NOW + 30
    edge.now += 10
    assert (edge.changes(), edge.rows.ended()) == ({}, [])
    edge.now += 20
    assert edge.changes() == {"digest b": None}


def test_while_no_key_is_due_keys_are_not_looked_at():
    calendar = expiry.Calendar()
    for number in range(1000):
        calendar.note(f"e{number}", [key("x", expires_at=NOW + number), key("y")], NOW - 1)
    assert calendar.due(NOW - 0.5) == set()
    assert calendar.due(NOW + 1) == {"e0", "e1"}
    assert calendar.due(NOW + 1) == set()


def test_what_was_noted_before_does_not_make_an_owner_due():
    calendar = expiry.Calendar()
    calendar.note("e1", [key("x", expires_at=NOW + 5)], NOW)
    calendar.note("e1", [dataclasses.replace(key("x", expires_at=NOW + 5), status="revoked")], NOW)
    assert calendar.due(NOW + 9) == set()
