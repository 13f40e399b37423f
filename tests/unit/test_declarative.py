"""Endpoints declared in Serve files."""

import pytest
import yaml
from support.platforms import ROOT

from cluster import errors
from deployments import declarative

ECHO = {"namespace": "team", "name": "declared", "model": {"image": {"echo": {"tag": "a"}}}}


def test_declared_endpoint_becomes_a_replica_spec():
    made = declarative.replica_spec({**ECHO, "compute": {"scaling": {"minReplica": 2, "maxReplica": 4}}})
    assert (made.namespace, made.endpoint, made.engine, made.declarative) == ("team", "declared", "echo", True)
    assert made.scaling["maxReplica"] == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"namespace": ""}, "namespace"),
        ({"name": "No Name"}, "name"),
        ({"model": {"image": {"echo": {}}, "nonsense": 1}}, "nonsense"),
        ({"model": {"image": {"echo": {}}, "secrets": {"HF_TOKEN": "x"}}}, "no place for secrets"),
        ({"model": {"image": {"echo": {}}, "env": {"LD_PRELOAD": "x"}}}, "LD_PRELOAD"),
        ({"model": {"repository": "a/b", "image": {"vLLM": {}}, "args": ["--port", "1"]}}, "--port"),
        ({"model": {"members": [{"name": "a"}, {"name": "b"}]}}, "has one model"),
        ({"model": {"image": {"diffusers": {}}, "task": "text-to-video"}}, "not offered with this engine"),
    ],
)
def test_declaration_that_cannot_be_is_refused(change, said):
    with pytest.raises(errors.InvalidRequest) as refused:
        declarative.replica_spec({**ECHO, **change})
    assert said in f"{refused.value.message} {refused.value.param}"


@pytest.mark.parametrize("file", ["echo.yaml", "llm.yaml"])
def test_shipped_serve_files_build_an_application(file):
    (application,) = yaml.safe_load((ROOT / "serve_configs" / file).read_text())["applications"]
    built = declarative.build_endpoint(application["args"])
    assert built._bound_deployment.name == "engine"


def test_change_of_scaling_alone_keeps_the_version_and_a_change_of_the_model_does_not():
    def version(**change):
        return declarative.build_endpoint({**ECHO, **change})._bound_deployment.version

    assert version() == version(compute={"scaling": {"maxReplica": 3}})
    assert version() != version(model={"image": {"echo": {"tag": "b"}}})
