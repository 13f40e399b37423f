"""An endpoint's state is derived from what is wanted and what is seen."""

import dataclasses

import pytest

from cluster import messages, observation, state


def test_a_new_endpoint_is_pending_until_a_replica_has_a_place(make):
    assert state.derive(make.endpoint(), {1: make.revision()}, {}).state == "pending"
    view = make.view(make.application(make.replica(state="starting", node=None), status="deploying"))
    assert state.derive(make.endpoint(), {1: make.revision()}, {1: view}).state == "pending"


def test_no_room_is_pending_with_the_figures(make):
    needs = observation.Needs(gpus=4, cpus=1, total_gpus=4, total_cpus=8, free_gpus_best_node=2, free_cpus_best_node=4)
    view = make.view(make.application(make.replica(state="starting", node=None, waiting=True), status="deploying"), needs=needs)
    status = state.derive(make.endpoint(), {1: make.revision()}, {1: view})
    assert (status.state, status.reason) == ("pending", "AwaitingResources")
    assert status.message == "This endpoint needs 4 GPUs on one node; the cluster has 4 in all, the best node has 2 free."
    assert status.needs == needs
    assert needs.wire() == {"resource": "gpus", "needed": 4, "total": 4, "freeOnBestNode": 2}


def test_a_cpu_replica_without_room_speaks_of_cpus():
    needs = observation.Needs(gpus=0, cpus=2, total_gpus=0, total_cpus=2, free_gpus_best_node=0, free_cpus_best_node=1)
    assert needs.sentence() == "needs 2 CPU on one node; the cluster has 2 in all, the best node has 1 free"
    assert needs.wire()["resource"] == "cpus"


def test_a_placed_replica_is_initializing_with_its_phase_and_bytes(make):
    app = make.application(make.replica(state="starting"), status="deploying")
    assert state.derive(make.endpoint(), {1: make.revision()}, {1: make.view(app)}).phase == "placing"
    phase = messages.Phase("downloading", 1.0, "Downloading", data={"bytes": 5, "total": 10, "source": "hub"})
    status = state.derive(make.endpoint(), {1: make.revision()}, {1: make.view(app, x=phase)})
    assert (status.state, status.phase, status.progress) == ("initializing", "downloading", {"bytes": 5, "total": 10})


def test_the_furthest_replica_tells_the_phase(make):
    app = make.application(make.replica("x", "starting"), make.replica("y", "starting"), status="deploying")
    view = make.view(app, x="smoke_test", y="downloading")
    assert state.derive(make.endpoint(), {1: make.revision()}, {1: view}).phase == "smoke_test"


def test_a_ready_replica_means_running(make):
    view = make.view(make.application(make.replica("x"), make.replica("y", "starting"), target=2), ready={"x"})
    status = state.derive(make.endpoint(serving=1), {1: make.revision()}, {1: view})
    assert (status.state, status.ready, status.target, status.revision) == ("running", 1, 2, 1)


def test_a_revision_that_answers_is_running_only_when_the_edge_sends_requests_there(make):
    view = make.view(make.application(make.replica("x")), ready={"x"}, x="ready")
    assert state.derive(make.endpoint(), {1: make.revision()}, {1: view}).state == "initializing"


def test_an_endpoint_whose_replicas_all_sleep_is_running_and_says_so(make):
    app = make.application(make.replica("x"), make.replica("y"), target=2)
    view = dataclasses.replace(make.view(app, ready={"x", "y"}), asleep={"x"})
    assert state.derive(make.endpoint(serving=1), {1: make.revision()}, {1: view}).reason == ""
    view = dataclasses.replace(view, asleep={"x", "y", "one that is gone"})
    status = state.derive(make.endpoint(serving=1), {1: make.revision()}, {1: view})
    assert (status.state, status.reason, status.ready) == ("running", "Sleeping", 2)
    assert status.message == "Asleep: the next request wakes it."


def test_losing_all_replicas_is_initializing_again(make):
    view = make.view(make.application(make.replica("x", "starting")))
    assert state.derive(make.endpoint(serving=1), {1: make.revision(live_at=1.0)}, {1: view}).state == "initializing"


def test_paused_wins_over_everything(make):
    view = make.view(make.application(make.replica("x")), ready={"x"})
    assert state.derive(make.endpoint(desired="paused", serving=1), {1: make.revision()}, {1: view}).state == "paused"


def test_asleep_is_scaled_to_zero_even_while_the_last_replica_drains(make):
    view = make.view(make.application(make.replica("x", "stopping")))
    assert state.derive(make.endpoint(awake=False, serving=1), {1: make.revision()}, {1: view}).state == "scaledToZero"


def test_a_failed_first_revision_is_failed_with_its_reason(make):
    revision = make.revision(failed_at=5.0, reason="GatedRepository", message="The repository is gated.")
    status = state.derive(make.endpoint(), {1: revision}, {})
    assert (status.state, status.reason, status.message) == ("failed", "GatedRepository", "The repository is gated.")


def both(make, endpoint, *, new=None, failed=None, old_ready=("x",)):
    old = make.view(make.application(make.replica("x")), ready=old_ready)
    revisions = {1: make.revision(1, live_at=1.0), 2: failed or make.revision(2)}
    return state.derive(endpoint, revisions, {1: old, 2: new or make.view()})


def test_a_newer_revision_that_starts_is_updating_while_the_old_one_answers(make):
    new = make.view(make.application(make.replica("z", "starting"), name="admin--demo-chat--r2"), z="loading")
    status = both(make, make.endpoint(serving=1, target=2), new=new)
    assert (status.state, status.phase, status.ready, status.revision) == ("updating", "loading", 1, 1)


def test_a_newer_revision_that_failed_is_update_failed_and_the_old_one_serves_on(make):
    failed = make.revision(2, failed_at=9.0, reason="BadFlag", message="unrecognized arguments: --nonsense")
    status = both(make, make.endpoint(serving=1, target=2), failed=failed)
    assert (status.state, status.reason, status.ready) == ("updateFailed", "BadFlag", 1)


@pytest.mark.parametrize(("command", "refused"), [("pause", set()), ("resume", {"running", "updating", "pending", "initializing"})])
def test_what_may_be_commanded_is_data(command, refused):
    assert refused.isdisjoint(state.ALLOWED[command])
    assert state.ALLOWED[command] <= state.STATES
