"""What is prepared for an endpoint at zero is what its replica will ask for."""

import os

import pytest

from cluster import spec
from deployments import launcher, preparation, server_environment
from deployments.engine import Site
from deployments.llm import Llm
from deployments.node import Node


def replica(engine="llm", gpus=0, **model):
    fields = {"repository": "a/b", "image": {"vLLM": {}}, **model}
    names = {"application": "ns--chat--r1", "namespace": "ns", "endpoint": "chat", "revision": 1}
    return spec.ReplicaSpec(**names, engine=engine, model=fields, placement=spec.Placement(gpus=gpus))


def key(environment):
    return launcher.key("python", "engine", {name: value for name, value in environment.items() if launcher.is_frozen(name)})


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """The (engine, environment) pairs that launchers were started for."""
    found = []

    class Launcher:
        def __init__(self, folder, environment, *, raylet):
            assert folder == tmp_path / "launchers"
            assert raylet > 0

        async def begin(self, launch, environment, private):
            found.append((launch.forked_by, environment))

    monkeypatch.setattr(preparation, "Launcher", Launcher)
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.delenv("MOORAGE_LAUNCHER", raising=False)
    return found


@pytest.mark.parametrize("model", [{}, {"env": {"VLLM_X": "1"}}, {"settings": {"system": {"compileCache": False}}}])
def test_a_launcher_is_started_with_the_key_that_the_replica_will_look_for(begun, tmp_path, monkeypatch, model):
    wanted = replica(**model)
    preparation.prepare(wanted.model_dump(mode="json"))
    ((engine, environment),) = begun
    assert engine == "deployments.vllm_api"
    node = Node.from_environment(os.environ)
    site = Site("10.0.0.5", 4711, tmp_path / "model", tmp_path, node.cache)
    started = server_environment.made(node, wanted, Llm().launch(wanted, site), {"HF_TOKEN": "hf_x"})
    assert key(environment) == key(started)


def test_where_engines_are_not_forked_nothing_is_started(begun, monkeypatch):
    preparation.prepare(replica(gpus=1).model_dump(mode="json"))
    preparation.prepare(replica("echo", image={"echo": {}}).model_dump(mode="json"))
    monkeypatch.setenv("MOORAGE_LAUNCHER", "off")
    preparation.prepare(replica().model_dump(mode="json"))
    assert begun == []


def test_with_the_launcher_switched_on_it_is_started_for_accelerators_too(begun, monkeypatch):
    monkeypatch.setenv("MOORAGE_LAUNCHER", "on")
    preparation.prepare(replica(gpus=1).model_dump(mode="json"))
    assert len(begun) == 1
