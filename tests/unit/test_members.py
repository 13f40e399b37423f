"""Endpoints of several models: what may be written about members, how they share an instance, what becomes of each."""

import hashlib
import json

import pytest

from cluster import admission, control, errors, hardware, members, merging, messages, observation, records, replica_options, snapshot, vault
from cluster import board as boards
from cluster import spec as specs
from cluster.actor import Actor
from cluster.publisher import Publisher
from cluster.reconciler import Reconciler
from cluster.serve_twin import ServeTwin
from cluster.settings import Settings
from cluster.store.memory import MemoryStore
from gateway import members as edge_members

SETTINGS = Settings(home="/srv/moorage")
NODES = (observation.Node("g1", "b", 64, 64, 8, 8, "H200"), observation.Node("g2", "c", 64, 64, 8, 1, "H200"))
GPUS = {"accelerator": "gpu", "instanceType": "nvidia-h200", "instanceSize": "x8"}
ADMIN = Actor("ada", "admin", frozenset({"admin"}), operator=True)
ECHOES = [{"name": "big", "image": {"echo": {}}}, {"name": "small", "image": {"echo": {"tag": "s"}}}]
TEAM = {"name": "team", "model": {"members": ECHOES}}
R1, R2 = "admin--team--r1", "admin--team--r2"


def model(*rows, **fields):
    return {"members": [row if isinstance(row, dict) else {"name": row, "repository": f"org/{row}"} for row in rows], **fields}


def admit(wire, compute=GPUS):
    spec = admission.read({"name": "team", "model": wire, "compute": compute})
    return admission.admit(spec, observation.Cluster(nodes=NODES), SETTINGS)


@pytest.mark.parametrize(
    ("wire", "param", "words"),
    [
        (model("one"), "model.members", "at least two members"),
        (model("one", "one"), "model.members", "two members are called 'one'"),
        (model("one", "team"), None, "endpoint's own name 'team'"),
        (model("one", {"name": "a:b"}), "model.members.1.name", "no '/' and no ':'"),
        (model("one", {"name": "x" * 33}), "model.members.1.name", "1 to 32"),
        (model("one", "tgi"), "model.members.1.name", "clients of other platforms"),
        (model("one", {"name": "two", "gpus": 3}), "model.members.1.gpus", "no power of two"),
        (model("one", {"name": "two", "members": []}), "model.members.1.members", "not a known field"),
        (model("one", {"name": "two", "secrets": {"A": "b"}}), "model.members.1.secrets", "not a known field"),
        (model("one", {"name": "two", "scaling": {"minReplica": 0}}), "model.members.1.scaling.minReplica", "greater than or equal to 1"),
        (model("one", {"name": "two", "scaling": {"minReplica": 2}}), None, "Member two: minReplica"),
        (model("one", "two", repository="org/x"), "model", "say repository in each member"),
        (model("one", "two", image={"echo": {}}), "model", "say image in each member"),
        (model("one", "two", primaryMember="three"), "model", "none of the members one, two"),
        (
            model({"name": "one", "primary": True}, "two", primaryMember="two"),
            "model",
            "one member can be the primary one, not one and two",
        ),
        ({"repository": "org/x", "primaryMember": "one"}, "model", "there are none"),
        (
            model("one", {"name": "two", "image": {"custom": {"url": "org/x", "port": 80}}}),
            "model.members.1.image",
            "Member two: a server of your own cannot be a member",
        ),
        (model("one", {"name": "two"}), "model.members.1.repository", "Member two: model.repository is missing"),
        (model("one", {"name": "two", "repository": "/etc"}), "model.members.1.repository", "outside the folders"),
        (model("one", {"name": "two", "repository": "org/x", "gpus": 8}), "compute.instanceSize", "choose x16"),
    ],
)
def test_what_is_wrong_with_members_is_said_with_the_field(wire, param, words):
    with pytest.raises(errors.InvalidRequest) as refusal:
        admit(wire)
    assert words in str(refusal.value)
    assert refusal.value.param == param


def test_the_primary_member_comes_first_and_is_the_first_when_nobody_says():
    read = admission.read
    assert read({"name": "team", "model": model("one", "two")}).model.member_names == ("one", "two")
    assert read({"name": "team", "model": model("one", "two", primaryMember="two")}).model.member_names == ("two", "one")
    marked = model("one", "two", {"name": "three", "primary": True})
    assert read({"name": "team", "model": marked}).model.member_names == ("three", "one", "two")


def test_a_model_without_members_is_written_as_before():
    wire = admission.read({"name": "team", "model": {"repository": "org/x"}}).revision_fields()["model"]
    assert "members" not in wire
    assert "primaryMember" not in wire


def test_each_member_claims_its_share_of_the_instance():
    found = admit(model("one", "two", "three", primaryMember="two")).members
    assert {name: claim.gpus for name, claim in found.items()} == {"one": 2, "two": 4, "three": 2}
    assert found["two"].bundles == ({"CPU": 1.0, "GPU": 4.0},)
    assert {claim.accelerator_type for claim in found.values()} == {"H200"}


def test_few_cpus_are_shared_in_fractions_and_have_no_gpus():
    assert [claim.bundles for claim in admit(model(*ECHOES), {}).members.values()] == [({"CPU": 0.5},), ({"CPU": 0.5},)]
    with pytest.raises(errors.InvalidRequest, match="has no GPUs: leave gpus out"):
        admit(model("one", {"name": "two", "repository": "org/x", "gpus": 1}), {})


def test_a_member_that_no_node_can_hold_is_warned_of_and_smaller_ones_on_several_nodes_are_not():
    assert not admit(model("one", "two", "three")).warnings
    (warning,) = admit(model({"name": "one", "repository": "org/x", "gpus": 16}, "two"), {**GPUS, "instanceSize": "x32"}).warnings
    assert "16 GPUs" in warning


def test_members_fit_when_each_finds_room_on_some_node():
    claims = tuple(admit(model("one", "two", "three")).members.values())
    assert members.fit(claims, NODES)
    assert not members.fit((*claims, claims[1]), NODES)


def test_a_revision_becomes_one_deployment_for_each_member():
    wire = {
        "name": "team",
        "model": model("one", {"name": "two", "repository": "org/two", "task": "embed", "env": {"A": "b"}}),
        "compute": GPUS,
    }
    admitted = admission.admit(admission.read(wire), observation.Cluster(nodes=NODES), SETTINGS)
    stored, _ = control.split_secrets(admitted.spec)
    endpoint = records.Endpoint("e1", "admin", "team", stored, 1)
    revision = records.Revision("e1", 1, admission.revision_fields(admitted))
    deploy = admission.deploy(endpoint, revision, hardware.instances(observation.Cluster(nodes=NODES)), SETTINGS)
    assert [part.spec.member for part in deploy.parts] == ["one", "two"]
    assert {part.spec.application for part in deploy.parts} == {R1}
    two = deploy.others[0].spec
    assert (two.engine, two.task, two.model["repository"], two.model["env"], two.placement.gpus) == (
        "llm",
        "embed",
        "org/two",
        {"A": "b"},
        4,
    )
    assert two.typed_model.members == ()
    assert [replica_options.options(part.spec)["name"] for part in deploy.parts] == ["engine-one", "engine-two"]
    assert [replica_options.member(replica_options.name(name)) for name in ("", "one", "engine")] == ["", "one", "engine"]


def test_the_version_of_an_endpoint_without_members_is_what_it_was_before_there_were_any():
    spec = specs.ReplicaSpec(application=R1, namespace="admin", endpoint="team", revision=1, engine="echo", model={})
    heavy = {name: value for name, value in spec.model_dump(mode="json").items() if name not in ("member", "scaling")}
    assert replica_options.version(spec, 0) == hashlib.sha256(json.dumps([heavy, 0], sort_keys=True).encode()).hexdigest()[:16]
    assert replica_options.version(spec.model_copy(update={"member": "a"}), 0) != replica_options.version(spec, 0)


class World:
    """The commands and the control loop on the twins of the store and of Serve; the test is the user and the replicas."""

    def __init__(self, tmp_path):
        self.now = 1000.0
        self.settings = Settings(home=tmp_path, tick_s=0.01, spare_workers=False)
        self.store, self.serve, self.board, self.publisher = MemoryStore(), ServeTwin(), boards.Board(self.now), Publisher(0)
        self.loop = Reconciler(self.settings, b"s", self.store, self.serve, self.board, self.publisher, self.deploy, clock=lambda: self.now)
        self.loop.reconcile()
        self.control = control.Control(
            settings=self.settings,
            store=self.store,
            vault=vault.Vault(b"1" * 32),
            statuses=self.loop.status,
            hint=self.loop.hint,
            cluster=self.loop.cluster,
            loads=self.loop.loads,
            clock=lambda: self.now,
        )

    def deploy(self, endpoint, revision):
        return admission.deploy(endpoint, revision, hardware.instances(self.loop.cluster()), self.settings)

    def passes(self, count=2):
        self.loop.hint()
        for _ in range(count):
            self.loop.reconcile()

    def run(self, member, application=R1):
        """The member's replicas become ready."""
        self.serve.run(application, member)
        for replica in self.serve.applications[application].replicas:
            if replica.member == member:
                revision = int(application.rpartition("r")[2])
                self.store.put_replica(records.Replica(replica.id, application, self.row.id, revision, "127.0.0.1", 4000, 8))
        self.passes()

    def tell(self, member, name, application=R1, **fields):
        replica = next(one for one in self.serve.applications[application].replicas if one.member == member)
        identity = messages.ReplicaIdentity(application, replica.id, member=member)
        self.board.note_phase(identity, messages.Phase(name, self.now, member=member, **fields))
        self.passes()

    @property
    def row(self):
        return self.store.endpoint("admin", "team")

    @property
    def status(self):
        return self.loop.status(self.row)

    @property
    def members(self):
        return {one.name: (one.state, one.ready, one.target) for one in self.status.members}

    @property
    def edge(self):
        return self.publisher._current.endpoints["admin/team"]

    def update(self, wire):
        self.control.update(ADMIN, "admin", "team", wire)
        self.passes()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.control.create(ADMIN, "admin", TEAM)
    world.passes()
    return world


@pytest.fixture
def running(world):
    world.run("big")
    world.run("small")
    assert world.status.state == "running"
    return world


def test_an_endpoint_runs_when_every_member_has_a_ready_replica(world):
    assert world.members == {"big": ("pending", 0, 1), "small": ("pending", 0, 1)}
    world.run("big")
    world.tell("small", "downloading", message="Half of it.")
    assert (world.status.state, world.status.ready, world.row.serving) == ("initializing", 1, None)
    assert (world.status.phase, world.status.message) == ("downloading", "Member small: Half of it.")
    assert world.members == {"big": ("running", 1, 1), "small": ("pending", 0, 1)}
    world.run("small")
    assert (world.status.state, world.status.ready, world.status.target, world.row.serving) == ("running", 2, 2, 1)
    assert [(one.member, one.draining) for one in world.edge.replicas] == [("big", False), ("small", False)]
    assert [member.name for member in world.edge.members] == ["big", "small"]
    assert [edge_members.slot(world.edge, name).max_concurrency for name in ("big", "small")] == [8 + world.edge.max_queue] * 2


def test_resumed_before_the_next_look_no_member_is_said_to_start(running):
    running.control.pause(ADMIN, "admin", "team")
    running.loop.reconcile()
    running.control.resume(ADMIN, "admin", "team")
    assert running.status.state == "pending"
    assert {name: state for name, (state, *_) in running.members.items()} == {"big": "pending", "small": "pending"}


def test_a_member_without_room_says_so(world):
    world.run("big")
    world.serve._each(R1, "small", node=None, waiting=True)
    world.passes()
    assert (world.status.state, world.status.reason) == ("pending", "AwaitingResources")
    assert world.status.message.startswith("Member small needs 0.5 CPU on one node")


def test_a_member_that_cannot_start_fails_the_revision_by_its_name(world):
    world.run("big")
    world.tell("small", "failed", reason="GatedRepository", message="You have no access.", permanent=True)
    assert (world.status.state, world.status.reason) == ("failed", "GatedRepository")
    assert world.status.message == "Member small: You have no access."
    assert R1 not in world.serve.applications


def test_the_crashes_of_one_member_are_counted_apart(running):
    for number in range(5):
        identity = messages.ReplicaIdentity(R1, f"crashed{number}", member="small")
        running.board.note_phase(identity, messages.Phase("failed", running.now, "Boom.", messages.CRASHED, member="small"))
    running.passes()
    assert running.status.state == "running"
    gone = next(one.id for one in running.serve.applications[R1].replicas if one.member == "small")
    running.store.remove_replicas([gone])
    running.passes()
    assert (running.status.state, running.status.reason) == ("failed", "CrashLoop")
    assert running.status.message.startswith("Member small: The engine crashed 5 times")


def test_a_broken_update_of_one_member_leaves_the_running_revision(running):
    broken = [ECHOES[0], {"name": "small", "image": {"echo": {"failure": "load"}}}]
    running.update({"model": {"members": broken}})
    assert set(running.serve.applications) == {R1, R2}
    running.run("big", R2)
    assert (running.status.state, running.row.serving) == ("updating", 1)
    running.tell("small", "failed", R2, reason="EngineExited", message="It ended.", permanent=True)
    assert (running.status.state, running.status.message, running.row.serving) == ("updateFailed", "Member small: It ended.", 1)
    assert set(running.serve.applications) == {R1}
    assert running.members == {"big": ("running", 1, 1), "small": ("running", 1, 1)}


def test_a_members_scaling_changes_in_place_and_survives_a_rollback(running):
    scaled = [ECHOES[0], {**ECHOES[1], "scaling": {"minReplica": 2, "maxReplica": 3, "targetConcurrency": 4}}]
    running.update({"model": {"members": scaled}})
    assert (running.row.target, set(running.serve.applications)) == (1, {R1})
    parts = {part.spec.member: part for part in running.serve.applications[R1].deployed.parts}
    assert [(part.minimum, part.maximum, part.target_concurrency) for part in parts.values()] == [(1, 1, 16), (2, 3, 4)]
    assert running.members["small"] == ("running", 1, 2)
    rolled = merging.with_revision(running.row.spec, running.store.revisions(running.row.id)[0].fields)
    assert rolled["model"]["members"][1]["scaling"] == {"minReplica": 2, "maxReplica": 3, "targetConcurrency": 4}


def test_the_edge_knows_the_members_of_the_revision_that_serves(running):
    running.update({"model": {"members": [*ECHOES, {"name": "late", "image": {"echo": {}}, "primary": True}]}})
    assert [member.name for member in running.edge.members] == ["big", "small"]
    for member in ("big", "small", "late"):
        running.run(member, R2)
    assert running.row.serving == 2
    assert [member.name for member in running.edge.members] == ["late", "big", "small"]


def test_one_model_becomes_several_when_its_own_fields_are_taken_back(world):
    world.control.create(ADMIN, "admin", {"name": "plain", "model": {"image": {"echo": {}}}})
    with pytest.raises(errors.InvalidRequest, match="either members or a model of its own: say image in each member"):
        world.control.update(ADMIN, "admin", "plain", {"model": {"members": ECHOES}})
    world.control.update(ADMIN, "admin", "plain", {"model": {"members": ECHOES, "image": None}})
    assert world.store.endpoint("admin", "plain").target == 2


def test_zero_takes_the_whole_endpoint_and_waking_brings_every_member(running):
    running.update({"compute": {"scaling": {"minReplica": 0}}})
    running.control.scale_to_zero(ADMIN, "admin", "team")
    running.passes()
    assert not running.serve.applications
    assert running.members == {"big": ("scaledToZero", 0, 0), "small": ("scaledToZero", 0, 0)}
    running.control.resume(ADMIN, "admin", "team")
    running.passes()
    assert {one.member for one in running.serve.applications[R1].replicas} == {"big", "small"}


def test_the_loads_of_all_members_are_asked_for(running):
    assert running.loop.loads(running.row) == [0.0, 0.0]


ROW = snapshot.Endpoint(
    "id", "acme", "team", "running", members=(snapshot.Member("big"), snapshot.Member("small", "embed", "/v1/embeddings")), max_queue=5
)


@pytest.mark.parametrize(
    ("model", "expert", "shared", "member"),
    [
        ("small", "", False, "small"),
        ("small", "", True, "big"),
        ("team:small", "", True, "small"),
        ("acme/team:small", "", False, "small"),
        ("other:small", "", False, "big"),
        ("", "small", True, "small"),
        ("big", "small", False, "small"),
        ("team:big", "small", False, "small"),
        ("team:big", "small", True, "big"),
        ("team:none", "", False, None),
        ("", "none", False, None),
        ("team:", "", True, None),
    ],
)
def test_the_edge_chooses_a_member_by_what_a_request_names(model, expert, shared, member):
    if member is None:
        with pytest.raises(errors.ModelNotFound, match="it has big, small"):
            edge_members.choose(ROW, model, expert, shared=shared)
    else:
        assert edge_members.choose(ROW, model, expert, shared=shared).path == f"acme/team:{member}"


def test_a_members_slot_has_its_own_route_and_an_endpoint_without_members_is_its_own_slot():
    assert edge_members.slot(ROW, "small").default_route == "/v1/embeddings"
    plain = {"acme/one": snapshot.Endpoint("id", "acme", "one", "running")}
    assert edge_members.slots(plain) is plain
    assert set(edge_members.slots({**plain, "acme/team": ROW})) == {"acme/one", "acme/team:big", "acme/team:small"}
    now = snapshot.Snapshot(1, {"acme/team": ROW})
    assert [edge_members.find(now, path) is not None for path in ("acme/team", "acme/team:big", "acme/team:none", "acme/no:big")] == [
        True,
        True,
        False,
        False,
    ]
