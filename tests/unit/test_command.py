"""The engine `command`: its launch, its environment, its refusals. No process is started."""

import pytest

from cluster import admission, engine_environment, engine_kinds, errors, observation, spec
from cluster.settings import Settings
from deployments import diagnosis, engine, engines, program_server, server_environment
from deployments.node import Node
from deployments.sources import listing

WORDS = ["python", "server.py", "--port", "{port}"]


def model(**fields):
    return {"image": {"command": fields.pop("image", {})}, "command": WORDS, **fields}


def replica(**fields):
    return spec.ReplicaSpec(application="a--b--r1", namespace="a", endpoint="b", revision=1, engine="command", model=model(**fields))


def site(tmp_path, **fields):
    return engine.Site("127.0.0.1", 4000, fields.get("model"), tmp_path, tmp_path)


def cluster():
    return observation.Cluster({}, (observation.Node("n", "127.0.0.1", 8.0, 8.0, 0, 0.0, "", 1 << 34),))


def admitted(tmp_path, *, allow=True, **fields):
    wire = {"name": "mine", "model": model(**fields)}
    return admission.admit(admission.read(wire), cluster(), Settings(home=tmp_path, allow_commands=allow))


def test_the_users_words_come_behind_the_options_of_the_guard(tmp_path):
    launch = engines.named("command").launch(replica(args=["-v"], image={"healthRoute": "/ping", "maxConcurrency": 3}), site(tmp_path))
    words = list(launch.command)
    assert words[words.index("--") + 1 :] == [*WORDS, "-v"]
    assert words[words.index("--health-route") + 1] == "/ping" and words[words.index("--max-concurrency") + 1] == "3"
    assert "--model" not in words


def test_the_endpoints_variables_are_for_the_program_alone(tmp_path):
    launch = engines.named("command").launch(replica(env={"PYTHONPATH": "/mine"}), site(tmp_path))
    node = Node(home=tmp_path, environment={"PATH": "/bin", "MOORAGE_HOME": "/secret", "PYTHONPATH": "/theirs"})
    environment = server_environment.made(node, replica(env={"PYTHONPATH": "/mine"}), launch, {"TOKEN": "t0ken"})
    assert "/mine" not in environment["PYTHONPATH"] and "TOKEN" not in environment
    assert program_server.program_environment(environment) == {"PYTHONPATH": "/mine", "TOKEN": "t0ken"}
    inherited = program_server.inherited(environment)
    assert inherited["PYTHONPATH"] == "/theirs" and inherited["PATH"] == "/bin"
    assert not [name for name in inherited if name.startswith("MOORAGE_")]


def test_commands_are_refused_until_the_operator_allows_them(tmp_path):
    with pytest.raises(errors.InvalidRequest, match="MOORAGE_ALLOW_COMMANDS=1") as refusal:
        admitted(tmp_path, allow=False)
    assert refusal.value.param == "model.image.command"
    assert admitted(tmp_path).placement.cpus == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"command": []}, "model.command"),
        ({"env": {"PORT": "80"}}, "model.env"),
        ({"secrets": {"MOORAGE_HOME": "x"}}, "model.secrets"),
        ({"repository": "/etc"}, "model.repository"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, fields, param):
    with pytest.raises(errors.InvalidRequest) as refusal:
        admitted(tmp_path, **fields)
    assert refusal.value.param == param


def test_a_health_route_is_a_path():
    with pytest.raises(errors.InvalidRequest, match="healthRoute"):
        admission.read({"name": "mine", "model": model(image={"healthRoute": "health"})})


def test_a_program_may_have_variables_that_an_engine_may_not():
    engine_environment.check(["PYTHONPATH", "HF_HOME", "HTTPS_PROXY"], program=True)
    with pytest.raises(errors.InvalidRequest):
        engine_environment.check(["HF_HOME"])


def test_a_model_is_brought_only_where_one_is_named():
    assert not engine_kinds.needs_model("command", spec.Model.model_validate(model()))
    assert engine_kinds.needs_model("command", spec.Model.model_validate(model(repository="org/model")))
    assert not engine_kinds.needs_model("echo", spec.Model(repository="org/model"))


def test_a_program_gets_every_file_of_its_model():
    files = [listing.File("weights.gguf", 5), listing.File("run.py", 5), listing.File("old/model.bin", 5)]
    assert listing.choose(files, listing.Rules.of(model())) == tuple(files)
    with pytest.raises(listing.SourceError):
        listing.choose([listing.File("../up", 1)], listing.Rules.of(model()))


def test_a_program_that_ends_is_explained_by_its_last_lines():
    lines = ["starting", "", "cannot read settings.toml", "moorage: the program ended with code 3"]
    failure = diagnosis.diagnose(3, lines)
    assert (failure.reason, failure.permanent) == ("ProgramExited", False)
    assert failure.message == "The program ended with code 3: starting | cannot read settings.toml"
    missing = diagnosis.diagnose(127, ["moorage: cannot start serveit: No such file or directory", lines[-1]])
    assert (missing.reason, missing.permanent) == ("ProgramNotFound", True)
    assert "serveit" in missing.message
