"""The control loop against the twins of the store and of Serve, on fake time."""

import asyncio
import dataclasses

import pytest

from cluster import board, granting, messages, observation, publisher, reconciler, records, snapshot
from cluster.serve_twin import ServeTwin
from cluster.settings import Settings
from cluster.store.memory import MemoryStore

R1, R2 = "admin--demo-chat--r1", "admin--demo-chat--r2"


class World:
    """A manager's inside without HTTP: the test is the user, the replicas and the gateway."""

    def __init__(self, make, tmp_path, spares=False):
        self.now = 1000.0
        self.wall = 1000.0
        self.store = MemoryStore()
        self.serve = ServeTwin()
        self.board = board.Board(self.now)
        self.publisher = publisher.Publisher(0)
        self.loop = reconciler.Reconciler(
            Settings(home=tmp_path, tick_s=0.01, spare_workers=spares),
            b"secret",
            self.store,
            self.serve,
            self.board,
            self.publisher,
            make.deploy,
            clock=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.make = make

    def create(self, **columns):
        return self.store.create_endpoint(self.make.endpoint(**columns), {"v": 1}, None, {})

    def announce(self, application, revision=1):
        for number, replica in enumerate(self.serve.run(application)):
            self.store.put_replica(records.Replica(replica, application, "e1", revision, "127.0.0.1", 4000 + number, 8))

    def tell(self, application, phase):
        identity = self.serve.applications[application].replicas[0].id
        self.board.note_phase(messages.ReplicaIdentity(application, identity), phase)

    @property
    def endpoint(self):
        return self.store.endpoint("admin", "demo-chat")

    @property
    def state(self):
        return self.loop.status(self.endpoint).state

    @property
    def published(self):
        async def first():
            async for news in self.publisher.watch():
                return news

        return asyncio.run(first())

    def passes(self, count=2):
        """Passes after a hint, as every writer gives one."""
        self.loop.hint("e1")
        for _ in range(count):
            self.loop.reconcile()


@pytest.fixture
def world(make, tmp_path):
    return World(make, tmp_path)


def up(world, **columns):
    world.create(**columns)
    world.passes()
    world.announce(R1)
    world.passes()
    assert world.state == "running"


def test_a_created_endpoint_comes_up(world):
    world.create()
    assert world.state == "pending"
    world.passes()
    world.serve.place(R1)
    world.passes(1)
    assert world.state == "initializing"
    world.announce(R1)
    world.passes()
    assert (world.state, world.endpoint.serving) == ("running", 1)
    row = world.published.endpoints["admin/demo-chat"]
    assert [(replica.port, replica.draining) for replica in row.replicas] == [(4000, False)]
    assert [event.kind for event in world.store.events("e1")] == ["deploying", "live"]


def test_a_pass_without_news_changes_nothing(world):
    up(world)
    calls, version, changes = len(world.serve.calls), world.published.version, world.store.changes()
    world.passes(3)
    assert (len(world.serve.calls), world.published.version, world.store.changes()) == (calls, version, changes)


def test_pause_removes_the_application_and_the_edge_hears_of_it_in_the_same_pass(world):
    up(world)
    world.store.update_endpoint("e1", {"desired": "paused"})
    world.passes(1)
    assert R1 not in world.serve.applications
    assert world.published.endpoints["admin/demo-chat"].replicas == ()
    assert world.state == "paused"


def test_resumed_before_the_next_look_it_is_not_called_running(world):
    up(world)
    world.store.update_endpoint("e1", {"desired": "paused"})
    world.passes(1)
    world.store.update_endpoint("e1", {"desired": "running"})
    assert world.state == "pending"
    world.loop.hint("e1")
    world.loop.publish()
    assert world.published.endpoints["admin/demo-chat"].replicas == ()
    world.passes()
    world.announce(R1)
    world.passes()
    assert world.state == "running"


def test_replicas_of_an_application_that_is_deleted_answer_nobody(world):
    up(world)
    seen = world.serve.applications[R1]
    world.serve.applications[R1] = dataclasses.replace(seen, status="deleting")
    world.serve.deploy = lambda _: None
    world.passes(1)
    assert world.state != "running"
    assert world.published.endpoints["admin/demo-chat"].replicas == ()


def test_an_update_moves_the_traffic_and_then_removes_the_old_revision(world):
    up(world)
    world.store.update_endpoint("e1", {}, fields={"v": 2})
    world.passes()
    assert set(world.serve.applications) == {R1, R2}
    assert world.state == "updating"
    world.announce(R2, revision=2)
    world.passes()
    assert set(world.serve.applications) == {R2}
    assert (world.state, world.endpoint.serving) == ("running", 2)
    assert [replica.revision for replica in world.published.endpoints["admin/demo-chat"].replicas] == [2]


def test_the_edge_knows_of_the_new_revision_before_the_old_one_is_removed(world):
    up(world)
    world.store.update_endpoint("e1", {}, fields={"v": 2})
    world.passes()
    world.announce(R2, revision=2)
    seen = []
    remove = world.serve.remove
    world.serve.remove = lambda name: (
        seen.append([replica.revision for replica in world.published.endpoints["admin/demo-chat"].replicas if not replica.draining]),
        remove(name),
    )
    world.passes()
    assert seen == [[2]]


def test_a_broken_update_leaves_the_old_revision_serving(world):
    up(world)
    world.store.update_endpoint("e1", {}, fields={"v": 2})
    world.passes()
    world.tell(R2, messages.Phase("failed", 5.0, "unrecognized arguments: --nonsense", "BadFlag", permanent=True))
    world.passes()
    assert set(world.serve.applications) == {R1}
    status = world.loop.status(world.endpoint)
    assert (status.state, status.reason, status.ready) == ("updateFailed", "BadFlag", 1)
    assert [replica.revision for replica in world.published.endpoints["admin/demo-chat"].replicas] == [1]


def test_a_late_word_of_a_removed_replica_does_not_fail_the_next_attempt(world):
    world.create()
    world.passes()
    failed = messages.Phase("failed", 5.0, "gone", "SourceUnreachable", permanent=True)
    replica = messages.ReplicaIdentity(R1, world.serve.applications[R1].replicas[0].id)
    world.board.note_phase(replica, failed)
    world.passes()
    assert world.state == "failed"
    world.board.note_phase(replica, failed)
    world.store.mark_revision("e1", 1, clear=True)
    world.passes()
    assert R1 in world.serve.applications
    assert world.state != "failed"


def test_idle_to_zero_and_back_by_a_wake(world):
    up(world, scaling={"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 1})
    world.now += 59
    world.passes()
    assert world.state == "running"
    world.now += 3
    world.passes()
    assert (world.state, set(world.serve.applications)) == ("scaledToZero", set())
    world.store.note_endpoint("e1", {"awake": True})
    world.board.touch("admin/demo-chat", world.now)
    world.passes(1)
    assert R1 in world.serve.applications


def test_a_woken_endpoint_is_handed_over_at_once_and_only_once(world):
    world.create(serving=1, awake=False)
    world.passes()
    world.store.note_endpoint("e1", {"awake": True})
    world.loop.start_now(world.endpoint)
    world.loop.start_now(world.endpoint)
    assert world.serve.calls == [("deploy", R1)]
    world.passes()
    assert world.serve.calls == [("deploy", R1)]
    assert [event.kind for event in world.store.events("e1")] == ["deploying"]


def test_a_woken_endpoint_with_an_update_under_way_is_left_to_the_pass(world):
    world.create(serving=1, awake=False)
    world.store.update_endpoint("e1", {"updated_at": world.now}, fields={"v": 2})
    world.passes()
    world.loop.start_now(world.endpoint)
    assert world.serve.calls == []


def test_a_hand_over_that_serve_did_not_take_is_tried_again(world):
    world.create(serving=1, awake=False)
    world.passes()
    world.store.note_endpoint("e1", {"awake": True})
    world.serve.down = True
    world.loop.start_now(world.endpoint)
    world.serve.down = False
    world.now += 60
    world.passes()
    assert set(world.serve.applications) == {R1}


def test_a_running_request_keeps_an_endpoint_awake(world):
    up(world, scaling={"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 1})
    for _ in range(10):
        world.now += 14
        world.board.note_activity(messages.Activity("g", world.now, active={"admin/demo-chat": 1}))
        world.passes(1)
    assert world.state == "running"


def test_the_load_time_is_learned(world):
    world.create()
    world.passes()
    world.now += 42.0
    world.announce(R1)
    world.passes()
    assert world.endpoint.load_seconds == pytest.approx(42.0)
    assert world.published.endpoints["admin/demo-chat"].load_seconds == pytest.approx(42.0)


def test_a_lost_replica_is_unrouted_and_forgotten(world):
    up(world, scaling={"minReplica": 2, "maxReplica": 2})
    assert len(world.published.endpoints["admin/demo-chat"].replicas) == 2
    app = world.serve.applications[R1]
    world.serve.applications[R1] = observation.Application(R1, "running", replicas=app.replicas[:1], target=2, deployed=app.deployed)
    world.passes(1)
    assert len(world.published.endpoints["admin/demo-chat"].replicas) == 1
    assert [row.id for row in world.store.replicas()] == [app.replicas[0].id]


def test_while_serve_does_not_answer_the_last_snapshot_stays_and_keys_still_change(world):
    up(world)
    world.serve.down = True
    world.store.add_key(records.Key("k1", "digest", "e", "admin", endpoint_id="e1"))
    world.loop.hint("e1")
    world.loop.publish()
    assert world.published.keys == {"digest": snapshot.Key("k1", "e", "admin", "admin/demo-chat")}
    assert len(world.published.endpoints["admin/demo-chat"].replicas) == 1


def test_one_failing_action_does_not_stop_the_others_and_is_tried_again_later(world):
    world.create()
    world.store.create_endpoint(world.make.endpoint(id="e2", name="other"), {}, None, {})
    deploy, failing = world.serve.deploy, True

    def flaky(wanted):
        if failing and wanted.spec.application == R1:
            raise RuntimeError("no")
        deploy(wanted)

    world.serve.deploy = flaky
    world.passes(1)
    assert set(world.serve.applications) == {"admin--other--r1"}
    failing = False
    world.passes(1)
    assert R1 not in world.serve.applications
    world.now += 3
    world.passes(1)
    assert R1 in world.serve.applications


def test_a_deleted_endpoints_application_is_removed_and_its_name_starts_with_a_new_revision(world):
    up(world)
    world.store.delete_endpoint("e1")
    world.passes(1)
    assert world.serve.applications == {}
    assert world.published.endpoints == {}
    assert world.create(id="e9").target == 2


def test_everything_comes_back_after_the_cluster_was_lost(world):
    up(world)
    world.serve.applications.clear()
    world.passes()
    assert R1 in world.serve.applications
    assert world.state != "running"
    world.announce(R1)
    world.passes()
    assert world.state == "running"


def test_a_restarted_manager_publishes_nothing_before_it_has_looked(world, make, tmp_path):
    up(world)
    fresh = publisher.Publisher(10_000)
    later = reconciler.Reconciler(
        Settings(home=tmp_path), b"secret", world.store, world.serve, board.Board(world.now), fresh, make.deploy, clock=lambda: world.now
    )
    later.publish()
    assert fresh.publish({}, {}) is True  # nothing had been published, so even an empty snapshot is news
    later.reconcile()
    assert world.published.endpoints["admin/demo-chat"].replicas


def test_what_another_process_wrote_is_noticed_without_a_hint(world):
    up(world)
    world.store.add_namespace("admin")
    world.store.add_user(records.User("ann", "admin", "admin"))
    world.store.add_key(records.Key("k2", "other", "p", "admin", owner="ann", role="member"))
    world.loop.publish()
    assert "other" not in world.published.keys
    world.loop.reconcile()
    assert "other" not in world.published.keys
    world.now += 11
    world.loop.reconcile()
    assert "other" in world.published.keys


def test_a_retry_right_after_a_failure_does_not_meet_the_old_failure(world):
    world.create()
    world.passes()
    world.tell(R1, messages.Phase("failed", 5.0, "no space left", "DiskFull", permanent=True))
    world.passes(1)
    assert world.state == "failed"
    assert R1 not in world.serve.applications
    world.store.mark_revision("e1", 1, clear=True)
    world.passes()
    assert world.state == "pending"
    world.announce(R1)
    world.passes()
    assert world.state == "running"


def test_the_loop_survives_whatever_a_pass_raises(world):
    """A database or a Serve that fails in any way costs passes, never the loop."""
    up(world)
    problems = iter([RuntimeError("disk I/O error"), KeyError("applications")])
    observe = world.serve.observe

    def flaky():
        problem = next(problems, None)
        if problem is not None:
            raise problem
        world.loop.stop()
        return observe()

    world.serve.observe = flaky
    passed = world.loop.passed_at
    world.now += 1
    world.loop.run()
    assert world.loop.passed_at > passed


def at_zero(world, image, env=None, **columns):
    fields = {"model": {"image": image, "env": env or {}}}
    return world.store.create_endpoint(world.make.endpoint(awake=False, **columns), fields, None, {})


def prepared(world):
    return [what for call, what in world.serve.calls if call == "prepare"]


def test_every_node_prepares_once_for_an_engine_that_takes_long_to_import(world):
    at_zero(world, {"vLLM": {}})
    at_zero(world, {"huggingface": {}}, id="e2", name="other-chat")
    world.passes(3)
    assert prepared(world) == [f"node {R1}"]
    world.serve.nodes += (observation.Node("late", "127.0.0.2", 8, 8),)
    world.passes(3)
    assert [what.split()[0] for what in prepared(world)] == ["node", "late"]


def test_another_environment_is_prepared_for_too(world):
    at_zero(world, {"vLLM": {}})
    at_zero(world, {"vLLM": {}}, env={"VLLM_X": "1"}, id="e2", name="other-chat")
    world.passes(2)
    assert len(prepared(world)) == 2


@pytest.mark.parametrize("image", [{"echo": {}}, {"custom": {"url": "x"}}])
def test_other_engines_are_not_prepared_for(world, image):
    at_zero(world, image)
    world.passes(2)
    assert prepared(world) == []


def test_a_running_or_paused_endpoint_needs_no_preparation(world):
    world.store.create_endpoint(world.make.endpoint(), {"model": {"image": {"vLLM": {}}}}, None, {})
    at_zero(world, {"vLLM": {}}, id="e2", name="other-chat", desired="paused")
    world.passes(2)
    assert prepared(world) == []


def test_nodes_keep_a_spare_worker(make, tmp_path):
    world = World(make, tmp_path, spares=True)
    world.passes(3)
    assert world.serve.calls == [("spare", "node")]


def test_each_pass_adds_to_the_timeline_of_replicas(world):
    heard = []
    world.loop.timeline.listen(lambda paths: heard.append(set(paths)))
    world.create()
    world.passes()
    world.now += 5
    world.announce(R1)
    world.passes()
    (replica,) = world.loop.timeline.replicas("admin/demo-chat").now
    assert replica.state == "running" and replica.since["running"] == 1005
    assert heard[-1] == {"admin/demo-chat"}
    world.store.delete_endpoint("e1")
    world.passes()
    assert heard[-1] == set() and world.loop.timeline.replicas("admin/demo-chat").now == ()


def test_a_key_whose_time_is_over_is_told_of_once_and_its_row_says_so(world):
    endpoint = world.create()
    world.store.add_key(records.Key("k1", "d1", "e", "admin", endpoint_id=endpoint.id, expires_at=50.0, replaced_by="k2"))
    world.wall = 40.0
    world.loop.reconcile()
    assert set(world.published.keys) == {"d1"}
    world.wall = 50.0
    for _ in range(3):
        world.loop.reconcile()
    assert world.published.keys == {}
    assert world.store.key("k1").status == "expired"
    told = [event for event in world.store.events(endpoint.id) if event.kind == "key_expired"]
    assert [(event.at, event.message) for event in told] == [(50.0, "Key k1 has expired; it was replaced by k2.")]


def test_a_key_that_ended_while_no_manager_ran_is_told_of_when_one_does(world):
    endpoint = world.create()
    world.store.add_key(records.Key("k1", "d1", "e", "admin", endpoint_id=endpoint.id, expires_at=50.0))
    world.loop.reconcile()
    world.loop.reconcile()
    assert world.store.key("k1").status == "expired"
    assert [event.kind for event in world.store.events(endpoint.id)].count("key_expired") == 1


def test_tenants_users_and_their_keys_reach_the_gateways_with_a_hint_alone(world):
    up(world)
    world.store.add_namespace("admin")
    world.store.add_user(records.User("ann", "admin", "admin", role="member"))
    world.store.add_key(records.Key("k1", "d1", "p", "admin", owner="ann", role="admin"))
    world.loop.hint(granting.of_user("ann"))
    world.loop.hint(granting.of_namespace("admin"))
    world.loop.publish()
    row = world.published.keys["d1"]
    assert (row.tenant, row.role, world.published.grants) == ("admin", "member", {row.scope: ("admin",)})
    assert world.published.endpoints["admin/demo-chat"].tenant == "admin"
    world.store.update_user("ann", {"active": False, "updated_at": 1.0})
    world.loop.hint(granting.of_user("ann"))
    world.loop.publish()
    assert "d1" not in world.published.keys


def test_a_key_is_told_to_the_gateways_without_a_pass(world):
    up(world)
    world.loop._hinted.clear()
    world.loop._news.clear()
    world.store.add_key(records.Key("k1", "d1", "e", "admin", endpoint_id="e1"))
    world.loop.hint_access("e1")
    assert (world.loop._news.is_set(), world.loop._hinted.is_set()) == (True, False)
    assert not world.loop.in_force.wait(0.0), "whoever changed it waits until it is published"
    world.loop.publish()
    assert "d1" in world.published.keys
    assert world.loop.in_force.wait(0.0)
    world.loop.hint("e1")
    assert (world.loop._news.is_set(), world.loop._hinted.is_set()) == (True, True)
