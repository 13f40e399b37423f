"""The commands on endpoints, on the store's twin: what becomes a revision, what changes in place, what is refused when."""

import threading

import pytest

from cluster import control, errors, hardware, keys, observation, records, state, vault
from cluster import declared as declared_rows
from cluster import spec as specs
from cluster.actor import Actor
from cluster.settings import Settings
from cluster.store import MemoryStore

ADMIN = Actor("ada", "admin", frozenset({"admin", "team"}), operator=True)
NODES = (observation.Node("n1", "127.0.0.1", 8, 8, 4, 4, "H200"),)
ECHO = {"name": "demo-chat", "model": {"image": {"echo": {}}}}


class World:
    """A Control with everything around it scripted: the clock, the cluster, the derived states."""

    def __init__(self):
        self.now = 1000.0
        self.state = state.RUNNING
        self.hints = []
        self.cluster = observation.Cluster(nodes=NODES)
        self.store = MemoryStore()
        self.control = control.Control(
            settings=Settings(home="/srv/moorage"),
            store=self.store,
            vault=vault.Vault(b"1" * 32),
            statuses=lambda endpoint: state.Status(self.state),
            hint=self.hints.append,
            cluster=lambda: self.cluster,
            clock=lambda: self.now,
        )

    def create(self, **fields):
        return self.control.create(ADMIN, "admin", {**ECHO, **fields}).endpoint

    def update(self, wire, **options):
        return self.control.update(ADMIN, "admin", "demo-chat", wire, **options)

    def do(self, command, **options):
        return getattr(self.control, command)(ADMIN, "admin", "demo-chat", **options)

    def live(self, revision, endpoint=None):
        """As the reconciler notes it."""
        row = self.control.get(ADMIN, "admin", "demo-chat")
        self.store.mark_revision(row.id, revision, live_at=self.now)
        self.store.note_endpoint(row.id, {"serving": revision})

    def row(self):
        return self.control.get(ADMIN, "admin", "demo-chat")

    def revisions(self):
        return self.store.revisions(self.row().id)

    def events(self):
        return [(event.kind, event.message) for event in self.store.events(self.row().id)]


@pytest.fixture
def world():
    return World()


def test_a_new_endpoint_has_a_first_revision_a_first_key_an_event_and_wakes_the_reconciler(world):
    made = world.control.create(ADMIN, "admin", ECHO)
    row = made.endpoint
    assert (row.target, row.serving, row.generation, row.created_by, row.created_at) == (1, None, 1, "ada", 1000.0)
    (key,) = world.store.keys(endpoint_id=row.id)
    assert (key.description, key.first, key.digest) == ("First Key", True, keys.digest(made.key.key))
    assert world.events() == [("create", "Created by ada.")]
    assert world.hints == [row.id]


def test_names_are_suggested_from_the_model_and_made_unique(world):
    wire = {"model": {"repository": "Qwen/Qwen3-0.6B", "image": {"echo": {}}}}
    names = [world.control.create(ADMIN, "admin", wire).endpoint.name for _ in range(3)]
    assert names == ["qwen3-0-6b", "qwen3-0-6b-2", "qwen3-0-6b-3"]
    assert world.control.create(ADMIN, "team", {**wire, "name": None}).endpoint.name == "qwen3-0-6b"


def test_a_taken_name_is_a_conflict_within_the_namespace_only(world):
    world.create()
    with pytest.raises(errors.AlreadyExists):
        world.create()
    assert world.control.create(ADMIN, "team", ECHO).endpoint.name == "demo-chat"


@pytest.mark.parametrize("namespace", ["nowhere", "", "Admin", "\0"])
def test_a_foreign_namespace_does_not_exist(world, namespace):
    with pytest.raises(errors.NotFound):
        world.control.create(ADMIN, namespace, ECHO)
    with pytest.raises(errors.NotFound):
        world.control.get(ADMIN, namespace, "demo-chat")


def test_an_endpoint_is_found_by_its_id_too_and_odd_names_are_just_not_found(world):
    row = world.create()
    assert world.control.get(ADMIN, "admin", row.id) == row
    for name in ("nothing", "a\0b", "x" * 5000, "../demo-chat", ""):
        with pytest.raises(errors.NotFound):
            world.control.get(ADMIN, "admin", name)


def test_an_endpoint_may_be_born_at_zero_and_says_so_only_once(world):
    row = world.create(compute={"scaling": {"minReplica": 0, "startAtZero": True}})
    assert not row.awake
    assert "startAtZero" not in row.spec["compute"]["scaling"]
    assert world.update({"compute": {"scaling": {"minReplica": 1}}}).awake


SCALING = {"compute": {"scaling": {"minReplica": 2, "maxReplica": 3, "scaleToZeroTimeout": 5, "targetConcurrency": 4}}}
IN_PLACE = [
    SCALING,
    {"type": "private"},
    {"description": "x"},
    {"tags": ["a"]},
    {"strategy": "recreate"},
    {"route": {"default": "/v1/completions"}},
]
REVISION = [
    {"model": {"image": {"echo": {"tag": "two"}}}},
    {"model": {"env": {"A": "b"}}},
    {"model": {"secrets": {"HF_TOKEN": "x"}}},
    {"model": {"args": ["--x"]}},
    {"model": {"task": "text-generation"}},
    {"compute": {"instanceSize": "x2"}},
    {"compute": {"instanceType": "nvidia-h200"}},
]


@pytest.mark.parametrize("wire", IN_PLACE)
def test_what_replicas_do_not_run_changes_in_place(world, wire):
    world.create()
    plan = world.control.plan_update(ADMIN, "admin", "demo-chat", wire)
    row = world.update(wire)
    assert (row.target, row.generation) == (1, 2)
    assert not plan.new_revision and plan.changed
    assert world.hints == [row.id, row.id]


@pytest.mark.parametrize("wire", REVISION)
def test_what_replicas_run_becomes_a_new_revision(world, wire):
    world.create()
    plan = world.control.plan_update(ADMIN, "admin", "demo-chat", wire)
    row = world.update(wire)
    assert (row.target, row.generation) == (2, 2)
    assert [revision.number for revision in world.revisions()] == [1, 2]
    assert plan.new_revision and plan.changed


@pytest.mark.parametrize("wire", [{}, {"description": ""}, {"model": {"image": {"echo": {}}}}, {"name": "demo-chat"}])
def test_a_change_of_nothing_changes_nothing(world, wire):
    before = world.create()
    assert world.update(wire) == before
    assert world.control.plan_update(ADMIN, "admin", "demo-chat", wire).changed == ()
    assert [kind for kind, _ in world.events()] == ["create"]


def test_a_change_is_merged_and_null_takes_a_field_back_to_its_default(world):
    world.create(
        compute={"scaling": {"minReplica": 0, "maxReplica": 4, "scaleToZeroTimeout": 5}}, model={**ECHO["model"], "env": {"A": "1"}}
    )
    row = world.update({"compute": {"scaling": {"maxReplica": 8, "scaleToZeroTimeout": None}}, "model": {"env": {"B": "2"}}})
    assert row.spec["compute"]["scaling"] == {"minReplica": 0, "maxReplica": 8}
    assert row.spec["model"]["env"] == {"B": "2"}
    assert row.parsed.model.image.variant == "echo"
    assert world.events()[-1] == (
        "update",
        "Updated by ada: compute.scaling.maxReplica, compute.scaling.scaleToZeroTimeout, model.env.",
    )


def test_a_measure_is_replaced_as_a_whole_and_can_be_sent_back(world):
    scaling = {"measure": {"pendingRequests": None}}
    row = world.create(compute={"scaling": scaling})
    assert world.update({"compute": {"scaling": scaling}}).generation == row.generation
    row = world.update({"compute": {"scaling": {"measure": {"hardwareUsage": 80}}}})
    assert row.parsed.compute.scaling.measure == {"hardwareUsage": 80}


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ({"name": "another"}, "name"),
        ({"model": "text"}, "model"),
        ({"model": {"secrets": ["A"]}}, "model.secrets"),
        ({"model": {"secrets": {"A": ""}}}, "model.secrets.A"),
        ({"model": {"secrets": {"A": None}}}, "model.secrets.A"),
        ({"model": {"image": {"echo": {}, "vLLM": {}}}}, "model.image"),
        ({"compute": 7}, "compute"),
        ({"compute": {"scaling": None, "nonsense": 1}}, "compute.nonsense"),
        ({"status": {}}, "status"),
    ],
)
def test_a_change_that_cannot_be_names_the_field_and_changes_nothing(world, wire, param):
    before = world.create()
    with pytest.raises(errors.InvalidRequest) as refusal:
        world.update(wire)
    assert refusal.value.param == param
    assert world.row() == before


def test_taking_the_whole_model_back_leaves_an_endpoint_without_one_which_is_refused(world):
    world.create()
    with pytest.raises(errors.InvalidRequest) as refusal:
        world.update({"model": None})
    assert refusal.value.param == "model.repository"


def test_secret_values_are_sealed_named_and_never_in_the_spec_or_revision(world):
    row = world.create(model={**ECHO["model"], "secrets": {"TOKEN": "hunter2"}})
    assert row.spec["model"]["secrets"] == {"TOKEN": ""}
    assert world.revisions()[0].fields["model"]["secrets"] == ["TOKEN"]
    sealed = world.store.secrets(row.id)["TOKEN"]
    assert "hunter2" not in f"{row}{world.revisions()}{world.events()}{sealed}"
    assert world.control.unseal(sealed) == "hunter2"


def test_a_new_secret_value_changes_in_place_and_gives_what_failed_another_try(world):
    row = world.create(model={**ECHO["model"], "secrets": {"TOKEN": "old", "OTHER": "kept"}})
    world.store.mark_revision(row.id, 1, failed_at=1.0, reason="GatedRepository")
    row = world.update({"model": {"secrets": {"TOKEN": "new", "OTHER": ""}}})
    assert row.target == 1
    assert world.revisions()[0].failed_at is None
    assert {name: world.control.unseal(text) for name, text in world.store.secrets(row.id).items()} == {"TOKEN": "new", "OTHER": "kept"}


def test_a_secret_left_out_of_the_new_set_is_gone(world):
    row = world.create(model={**ECHO["model"], "secrets": {"TOKEN": "x", "OTHER": "y"}})
    row = world.update({"model": {"secrets": {"OTHER": ""}}})
    assert row.target == 2
    assert list(world.store.secrets(row.id)) == ["OTHER"]


def test_other_changes_leave_secrets_alone(world):
    row = world.create(model={**ECHO["model"], "secrets": {"TOKEN": "x"}})
    before = world.store.secrets(row.id)
    world.update({"description": "new"})
    world.update({"model": {"env": {"A": "1"}}})
    assert world.store.secrets(row.id) == before


def test_a_stale_generation_is_refused_even_for_a_change_of_nothing(world):
    world.create()
    world.update({"description": "one"})
    for wire in ({"description": "two"}, {}):
        with pytest.raises(errors.StaleGeneration):
            world.update(wire, expected=1)
    with pytest.raises(errors.StaleGeneration):
        world.do("delete", expected=1)
    assert world.update({"description": "two"}, expected=2).generation == 3


def test_changes_of_different_fields_at_the_same_time_are_all_kept(world):
    world.create()
    barrier = threading.Barrier(5)

    def change(number):
        barrier.wait()
        world.update({"route": {"default": "/v1/responses"}} if number == 0 else {"tags": [f"t{number}"], "description": f"d{number}"})

    threads = [threading.Thread(target=change, args=[number]) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = world.row()
    assert row.generation == 6
    assert row.parsed.route.default == "/v1/responses"
    assert row.parsed.description == row.parsed.tags[0].replace("t", "d")


def test_an_endpoint_whose_nodes_are_away_can_be_changed_but_not_moved_to_nothing(world):
    world.create(compute={"instanceType": "nvidia-h200", "instanceSize": "x2"})
    world.cluster = observation.Cluster(nodes=(observation.Node("c", "127.0.0.1", 8, 8),))
    assert world.update({"description": "still here"}).target == 1
    with pytest.raises(errors.InvalidRequest):
        world.update({"compute": {"instanceType": "nvidia-l4"}})


def test_moving_to_other_hardware_moves_the_accelerator_with_it(world):
    world.create()
    row = world.update({"compute": {"instanceType": "nvidia-h200", "instanceSize": "x4"}})
    assert row.parsed.compute.accelerator == "gpu"
    assert world.revisions()[-1].fields["placement"]["gpus"] == 4
    assert world.update({"compute": {"instanceType": "local-cpu"}}).parsed.compute.accelerator == "cpu"


def test_pause_and_resume(world):
    world.create()
    assert world.do("pause").desired == "paused"
    world.state = state.PAUSED
    generation = world.row().generation
    assert world.do("pause").generation == generation
    resumed = world.do("resume")
    assert (resumed.desired, resumed.awake) == ("running", True)
    assert [kind for kind, _ in world.events()] == ["create", "pause", "resume"]


@pytest.mark.parametrize("now", sorted(state.STATES - state.ALLOWED["resume"]))
def test_resuming_what_runs_or_starts_is_refused_with_the_words_the_client_knows(world, now):
    world.create()
    world.state = now
    with pytest.raises(errors.AlreadyRunning, match="already running"):
        world.do("resume")


@pytest.mark.parametrize("command", ["resume", "restart"])
def test_resume_and_restart_give_a_failed_revision_another_try(world, command):
    row = world.create()
    world.store.mark_revision(row.id, 1, failed_at=1.0, reason="DiskFull")
    world.state = state.FAILED
    world.do(command)
    assert world.revisions()[0].failed_at is None


def test_a_restart_counts_so_that_replicas_are_replaced_and_wakes(world):
    world.create()
    world.do("scale_to_zero")
    world.state = state.SCALED_TO_ZERO
    row = world.do("restart")
    assert (row.restarts, row.awake, row.target) == (1, True, 1)


def test_scale_to_zero_sleeps_once_and_not_on_a_committed_plan(world):
    world.create()
    assert not world.do("scale_to_zero").awake
    world.state = state.SCALED_TO_ZERO
    generation = world.row().generation
    assert world.do("scale_to_zero").generation == generation
    world.control.create(ADMIN, "admin", {**ECHO, "name": "committed", "compute": {"plan": "committed"}})
    world.state = state.RUNNING
    with pytest.raises(errors.Conflict, match="hourly"):
        world.control.scale_to_zero(ADMIN, "admin", "committed")


COMMANDS = {"pause": "pause", "resume": "resume", "scale-to-zero": "scale_to_zero", "restart": "restart", "rollback": "rollback"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("now", sorted(state.STATES))
def test_a_command_is_refused_in_exactly_the_states_that_do_not_allow_it(world, command, now):
    world.create()
    world.live(1)
    world.update({"model": {"env": {"A": "1"}}})
    world.state = now
    if now in state.ALLOWED[command]:
        world.do(COMMANDS[command])
    else:
        with pytest.raises((errors.Conflict, errors.AlreadyRunning)):
            world.do(COMMANDS[command])


def test_every_command_of_the_table_is_a_method(world):
    for command in state.ALLOWED:
        assert callable(getattr(world.control, command.replace("-", "_")))


def test_rolling_back_a_failed_update_returns_to_the_serving_revision_at_once(world):
    world.create(description="kept")
    world.live(1)
    world.update({"model": {"image": {"echo": {"failure": "load"}}}, "description": "newer"})
    row = world.do("rollback")
    assert (row.target, row.serving) == (1, 1)
    assert row.parsed.model.image.echo.failure == "none"
    assert row.parsed.description == "newer"
    # and the next change starts from there, under a number of its own
    assert world.update({"model": {"env": {"A": "1"}}}).target == 3
    assert world.row().parsed.model.image.echo.failure == "none"


def test_rolling_back_a_good_update_starts_the_earlier_one_as_a_new_revision(world):
    world.create(model={"image": {"echo": {"tag": "one"}}})
    world.live(1)
    world.update({"model": {"image": {"echo": {"tag": "two"}}, "secrets": {"TOKEN": "x"}}})
    world.live(2)
    row = world.do("rollback")
    assert (row.target, row.serving) == (3, 2)
    assert row.parsed.model.image.echo.tag == "one"
    third = world.revisions()[-1].fields
    assert third["placement"] == world.revisions()[0].fields["placement"]
    assert third["model"]["secrets"] == ["TOKEN"]
    # nothing is left over that a later change would take for a new revision
    assert world.update({"description": "x"}).target == 3


def test_rolling_back_by_number_and_to_what_cannot_be(world):
    world.create(model={"image": {"echo": {"tag": "one"}}})
    with pytest.raises(errors.Conflict, match="no earlier revision"):
        world.do("rollback")
    with pytest.raises(errors.NotFound, match="no revision 7"):
        world.do("rollback", to=7)
    with pytest.raises(errors.Conflict, match="restart"):
        world.do("rollback", to=1)
    world.update({"model": {"image": {"echo": {"tag": "two"}}}})
    assert world.do("rollback", to=1).parsed.model.image.echo.tag == "one"


def test_a_deleted_endpoint_is_gone_and_its_numbers_are_not_used_again(world):
    world.create()
    world.update({"model": {"env": {"A": "1"}}})
    world.do("delete")
    with pytest.raises(errors.NotFound):
        world.row()
    assert world.create().target == 3


def declared(**changes):
    fields = {
        "application": "by-hand",
        "namespace": "team",
        "endpoint": "declared-one",
        "revision": 1,
        "engine": "echo",
        "model": specs.Model.model_validate({"image": {"echo": {}}}).wire(),
        "placement": specs.Placement(gpus=2, accelerator_type="H200"),
        "scaling": {"maxReplica": 3},
        "declarative": True,
    }
    return specs.ReplicaSpec.model_validate(fields | changes)


def test_a_declared_endpoint_shows_its_hardware_and_keeps_its_authors_application_name():
    row, fields = declared_rows.row_of(declared(), "by-hand", 5.0)
    assert (row.namespace, row.name, row.source, row.created_by) == ("team", "declared-one", "declarative", "serve deploy")
    assert (row.parsed.compute.instance_type, row.parsed.compute.instance_size) == ("nvidia-h200", "x2")
    assert row.parsed.compute.scaling.max_replica == 3
    assert state.application_of(row, 1) == "by-hand"
    assert fields["placement"]["gpus"] == 2
    assert declared_rows.row_of(declared(), "by-hand", 9.0)[0].spec == row.spec
    cpu = declared_rows.row_of(declared(placement=specs.Placement(cpus=4)), "by-hand", 5.0)[0].parsed.compute
    assert (cpu.instance_type, cpu.instance_size) == (hardware.CPU_TYPE, "x4")


@pytest.mark.parametrize("changes", [{"namespace": "../etc"}, {"namespace": "A"}, {"endpoint": "x"}, {"endpoint": "../x"}])
def test_a_declared_endpoint_with_a_bad_name_is_refused(changes):
    with pytest.raises(errors.InvalidRequest):
        declared_rows.row_of(declared(**changes), "by-hand", 5.0)


def test_a_declared_endpoint_is_read_only_in_everything(world):
    row, fields = declared_rows.row_of(declared(namespace="admin", endpoint="demo-chat"), "by-hand", 5.0)
    world.store.create_endpoint(row, fields, None, {})
    for command in ("pause", "resume", "scale_to_zero", "restart", "rollback", "delete"):
        with pytest.raises(errors.ReadOnly):
            world.do(command)
    with pytest.raises(errors.ReadOnly):
        world.update({"description": "x"})


def test_a_plan_tells_placement_warnings_and_whether_there_is_room_and_changes_nothing(world):
    compute = {"instanceType": "nvidia-h200", "instanceSize": "x4"}
    plan = world.control.plan_create(ADMIN, "admin", {**ECHO, "compute": compute})
    assert (plan.fits_now, plan.warnings, plan.placement.bundles) == (True, (), ({"CPU": 1.0, "GPU": 4.0},))
    world.cluster = observation.Cluster(
        nodes=(observation.Node("n1", "127.0.0.1", 8, 8, 4, 1, "H200"), observation.Node("n2", "b", 8, 8, 4, 4, "L4"))
    )
    plan = world.control.plan_create(ADMIN, "admin", {**ECHO, "compute": compute})
    assert not plan.fits_now
    assert "best node has 1 free" in plan.warnings[0]
    assert world.store.endpoints() == []
    assert world.hints == []


def test_rows_are_listed_by_name_within_a_namespace(world):
    for name in ("second", "first"):
        world.create(name=name)
    world.control.create(ADMIN, "team", ECHO)
    assert [row.name for row in world.control.list(ADMIN, "admin")] == ["first", "second"]
    assert isinstance(world.control.list(ADMIN, "team")[0], records.Endpoint)
