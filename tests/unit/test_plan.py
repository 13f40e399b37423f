"""The plan is a pure function: each case is a row."""

import dataclasses

import pytest

from cluster import errors, messages, observation, plan, records

NOW = 1000.0
R1, R2 = "admin--demo-chat--r1", "admin--demo-chat--r2"


@pytest.fixture
def run(make):
    def run(endpoint, *applications, views=None, announced=(), revisions=None, last_active=NOW, active=0, deployer=make.deploy):
        revisions = revisions or {number: make.revision(number) for number in {endpoint.serving or endpoint.target, endpoint.target}}
        wanted = plan.Wanted(endpoint, revisions, last_active, active)
        observed = observation.Cluster({application.name: application for application in applications})
        seen = {(endpoint.id, number): view for number, view in (views or {}).items()}
        return plan.plan([wanted], observed, seen, announced, deployer, NOW)

    return run


def deployed(make, application, endpoint, number):
    return dataclasses.replace(application, deployed=make.deploy(endpoint, make.revision(number)))


def kinds(actions):
    return [type(action).__name__ for action in actions]


def test_a_new_endpoint_is_deployed(run, make):
    (action,) = run(make.endpoint())
    assert isinstance(action, plan.Deploy)
    assert action.wanted.spec.application == R1


def test_what_runs_as_wanted_is_left_alone(run, make):
    endpoint = make.endpoint(serving=1)
    app = deployed(make, make.application(make.replica("x")), endpoint, 1)
    assert run(endpoint, app, views={1: make.view(app, ready={"x"})}) == []


def test_after_a_restart_of_the_manager_what_runs_is_deployed_again_which_serve_takes_as_no_change(run, make):
    endpoint = make.endpoint(serving=1)
    app = make.application(make.replica("x"))
    assert kinds(run(endpoint, app, views={1: make.view(app, ready={"x"})})) == ["Deploy"]


def test_new_bounds_are_applied_in_place(run, make):
    app = deployed(make, make.application(make.replica("x")), make.endpoint(serving=1), 1)
    (action,) = run(make.endpoint(serving=1, scaling={"maxReplica": 3}), app, views={1: make.view(app, ready={"x"})})
    assert (action.wanted.spec.application, action.wanted.maximum) == (R1, 3)


@pytest.mark.parametrize("columns", [{"desired": "paused"}, {"awake": False}])
def test_a_paused_or_sleeping_endpoint_has_no_application(run, make, columns):
    app = make.application(make.replica("x"))
    assert run(make.endpoint(serving=1, **columns), app) == [plan.Remove(R1)]
    assert run(make.endpoint(serving=1, **columns)) == []


def test_an_application_being_deleted_is_not_removed_twice_and_is_deployed_again_when_wanted(run, make):
    app = make.application(status="deleting")
    assert run(make.endpoint(desired="paused"), app) == []
    assert kinds(run(make.endpoint(), app)) == ["Deploy"]


def test_the_first_ready_replica_makes_the_first_revision_live(run, make):
    endpoint = make.endpoint()
    app = deployed(make, make.application(make.replica("x")), endpoint, 1)
    assert run(endpoint, app, views={1: make.view(app, ready={"x"})}) == [plan.Promote(endpoint, 1)]


def test_an_update_starts_the_new_revision_and_keeps_the_old_one(run, make):
    endpoint = make.endpoint(serving=1, target=2)
    old = deployed(make, make.application(make.replica("x")), endpoint, 1)
    (action,) = run(endpoint, old, views={1: make.view(old, ready={"x"})})
    assert action.wanted.spec.application == R2


def test_an_update_by_recreate_stops_the_old_revision_first(run, make):
    endpoint = make.endpoint(serving=1, target=2, strategy="recreate")
    old = deployed(make, make.application(make.replica("x")), endpoint, 1)
    actions = run(endpoint, old, views={1: make.view(old, ready={"x"})})
    assert kinds(actions) == ["Deploy", "Remove"]
    assert actions[0].wanted.spec.application == R2
    assert actions[1] == plan.Remove(R1)


def test_traffic_moves_only_when_every_wanted_replica_of_the_new_revision_is_ready(run, make):
    endpoint = make.endpoint(serving=1, target=2, scaling={"minReplica": 2, "maxReplica": 2})
    old = deployed(make, make.application(make.replica("x"), make.replica("y")), endpoint, 1)
    new = deployed(make, make.application(make.replica("a"), make.replica("b", "starting"), name=R2), endpoint, 2)
    half = {1: make.view(old, ready={"x", "y"}), 2: make.view(new, ready={"a"})}
    assert run(endpoint, old, new, views=half) == []
    whole = {**half, 2: make.view(new, ready={"a", "b"})}
    assert run(endpoint, old, new, views=whole) == [plan.Promote(endpoint, 2)]


def test_where_nothing_else_answers_the_first_replica_takes_the_traffic(run, make):
    new = make.application(make.replica("y"), make.replica("z", "starting"), name=R2, target=2)
    views = {2: make.view(new, ready={"y"})}
    assert plan.Promote(make.endpoint(target=2), 2) in run(make.endpoint(target=2), new, views=views)
    gone = make.endpoint(target=2, serving=1)
    assert plan.Promote(gone, 2) in run(gone, new, views=views)
    old = make.application(make.replica("x"))
    assert "Promote" not in kinds(run(gone, old, new, views=views | {1: make.view(old, ready={"x"})}))


def test_a_new_revision_that_finds_room_for_only_some_replicas_is_promoted_with_those(run, make):
    endpoint = make.endpoint(serving=1, target=2)
    needs = observation.Needs(1, 1, 1, 1, 0, 0)
    old = deployed(make, make.application(make.replica("x")), endpoint, 1)
    new = deployed(make, make.application(make.replica("a"), make.replica("b", "starting", None, True), name=R2), endpoint, 2)
    views = {1: make.view(old, ready={"x"}), 2: make.view(new, ready={"a"}, needs=needs)}
    assert run(endpoint, old, new, views=views) == [plan.Promote(endpoint, 2)]


def test_after_promotion_the_old_revision_is_drained(run, make):
    endpoint = make.endpoint(serving=2, target=2)
    old = make.application(make.replica("x"))
    new = deployed(make, make.application(make.replica("a"), name=R2), endpoint, 2)
    assert run(endpoint, old, new, views={2: make.view(new, ready={"a"})}) == [plan.Remove(R1)]


def test_a_permanent_failure_ends_the_revision_at_once(run, make):
    endpoint = make.endpoint()
    app = deployed(make, make.application(make.replica("x", "starting"), status="deploying"), endpoint, 1)
    failed = messages.Phase("failed", 1.0, "No such repository.", "RepositoryNotFound", permanent=True)
    assert run(endpoint, app, views={1: make.view(app, x=failed)}) == [plan.Fail(endpoint, 1, "RepositoryNotFound", "No such repository.")]


def test_a_passing_failure_is_left_to_serve_until_it_gives_up(run, make):
    endpoint = make.endpoint()
    failed = messages.Phase("failed", 1.0, "The server exited.", "EngineCrashed")
    app = deployed(make, make.application(make.replica("y", "starting"), status="deploying"), endpoint, 1)
    assert run(endpoint, app, views={1: make.view(app, x=failed)}) == []
    given_up = dataclasses.replace(app, status="failed", replicas=())
    assert run(endpoint, given_up, views={1: make.view(given_up, x=failed)}) == [
        plan.Fail(endpoint, 1, "EngineCrashed", "The server exited.")
    ]


@pytest.mark.parametrize(
    ("count", "at", "target", "given_up"), [(5, NOW, 1, True), (4, NOW, 1, False), (5, 1.0, 1, False), (9, NOW, 2, False)]
)
def test_a_revision_whose_engine_crashes_again_and_again_is_given_up(run, make, count, at, target, given_up):
    endpoint = make.endpoint(serving=1)
    app = dataclasses.replace(deployed(make, make.application(make.replica("y", "starting")), endpoint, 1), target=target)
    crashes = {f"x{number}": messages.Phase("failed", at, "Out of memory.", messages.CRASHED) for number in range(count)}
    message = "The engine crashed 5 times within ten minutes. The last time: Out of memory."
    assert run(endpoint, app, views={1: make.view(app, **crashes)}) == ([plan.Fail(endpoint, 1, "CrashLoop", message)] if given_up else [])


def test_one_failing_replica_does_not_fail_a_revision_that_answers(run, make):
    endpoint = make.endpoint(serving=1)
    app = deployed(make, make.application(make.replica("x"), make.replica("y", "starting")), endpoint, 1)
    failed = messages.Phase("failed", 1.0, "", "DiskFull", permanent=True)
    assert run(endpoint, app, views={1: make.view(app, ready={"x"}, y=failed)}) == []


def test_a_failed_update_is_removed_and_the_serving_revision_stays(run, make):
    endpoint = make.endpoint(serving=1, target=2)
    old = deployed(make, make.application(make.replica("x")), endpoint, 1)
    new = make.application(status="failed", name=R2)
    revisions = {1: make.revision(1), 2: make.revision(2, failed_at=5.0, reason="BadFlag")}
    assert run(endpoint, old, new, views={1: make.view(old, ready={"x"})}, revisions=revisions) == [plan.Remove(R2)]


def test_a_failed_recreate_brings_the_serving_revision_back(run, make):
    endpoint = make.endpoint(serving=1, target=2, strategy="recreate")
    revisions = {1: make.revision(1), 2: make.revision(2, failed_at=5.0)}
    (action,) = run(endpoint, revisions=revisions)
    assert action.wanted.spec.application == R1


def test_a_spec_that_cannot_be_read_fails_its_revision_and_nothing_else(run, make):
    def deployer(endpoint, revision):
        raise errors.InvalidRequest("there is no instance type nvidia-x9")

    endpoint = make.endpoint()
    assert run(endpoint, deployer=deployer) == [plan.Fail(endpoint, 1, "InvalidRevision", "there is no instance type nvidia-x9")]


ZERO = {"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 1}


@pytest.mark.parametrize(
    ("scaling", "last_active", "active", "sleeps"),
    [
        (ZERO, NOW - 61, 0, True),
        (ZERO, NOW - 59, 0, False),
        (ZERO, NOW - 61, 1, False),
        ({**ZERO, "minReplica": 1}, NOW - 9999, 0, False),
        ({"minReplica": 0, "maxReplica": 1}, NOW - 9999, 0, False),
    ],
)
def test_an_idle_endpoint_sleeps_after_its_timeout(run, make, scaling, last_active, active, sleeps):
    endpoint = make.endpoint(serving=1, scaling=scaling)
    app = deployed(make, make.application(make.replica("x")), endpoint, 1)
    actions = run(endpoint, app, views={1: make.view(app, ready={"x"})}, last_active=last_active, active=active)
    assert kinds(actions) == (["Sleep"] if sleeps else [])


def test_loading_is_not_idling(run, make):
    endpoint = make.endpoint(scaling=ZERO)
    app = deployed(make, make.application(make.replica("x", "starting")), endpoint, 1)
    assert run(endpoint, app, views={1: make.view(app, x="loading")}, last_active=0.0) == []


def test_replicas_that_serve_no_longer_runs_are_forgotten(run, make):
    endpoint = make.endpoint(serving=1)
    app = deployed(make, make.application(make.replica("x")), endpoint, 1)
    rows = [records.Replica(identity, R1, "e1", 1, "127.0.0.1", 1, 1) for identity in ("x", "gone")]
    assert run(endpoint, app, views={1: make.view(app, ready={"x"})}, announced=rows) == [plan.Forget(frozenset({"gone"}))]


def test_applications_of_others_are_never_touched(run, make):
    foreign = make.application(name="my-own-app")
    declared = make.application(name="team--thing--r1", declarative=True)
    endpoint = make.endpoint(desired="paused")
    assert run(endpoint, foreign, declared) == []


def test_declarative_endpoints_are_only_watched(run, make):
    endpoint = make.endpoint(source="declarative", serving=1)
    assert run(endpoint) == []
