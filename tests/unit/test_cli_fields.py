"""Options of `moorage endpoints create/update` and the request body they make."""

import pytest

from cluster.cli import fields
from cluster.cli.fields import Fields
from cluster.errors import InvalidRequest
from cluster.spec import EndpointSpec


def test_nothing_given_makes_an_empty_body():
    assert fields.body(Fields()) == {}


def test_what_is_given_is_in_the_body_and_nothing_else():
    body = fields.body(Fields(model="org/model", min_replica=0, max_replica=3, engine="echo", tag=["a", "b"]))
    assert body == {
        "tags": ["a", "b"],
        "compute": {"scaling": {"minReplica": 0, "maxReplica": 3}},
        "model": {"repository": "org/model", "image": {"echo": {}}},
    }


def test_a_full_body_is_an_endpoint_as_the_spec_reads_it():
    given = Fields(
        model="org/model",
        revision="main",
        task="text-generation",
        engine="vLLM",
        arg=["--max-model-len=4096", "--enforce-eager"],
        env=["A=b=c"],
        instance_type="nvidia-h200",
        instance_size="x2",
        scale_to_zero_timeout="15",
        target_concurrency=4.0,
        max_queue=10,
        type="public",
        description="words",
        strategy="recreate",
        default_route="/v1/embeddings",
        set=["model.settings.llm.maxModelLen=2048", "tags=[1]"],
    )
    body = fields.body(given) | {"name": "abcd", "tags": ["x"]}
    spec = EndpointSpec.model_validate(body)
    assert spec.compute.instance_type == "nvidia-h200" and spec.compute.instance_size == "x2"
    assert spec.model.args == ("--max-model-len", "4096", "--enforce-eager")
    assert spec.model.env == {"A": "b=c"}
    assert spec.compute.scaling.scale_to_zero_timeout == 15
    assert spec.model.settings.llm.max_model_len == 2048


def test_never_clears_the_time_to_zero():
    assert fields.body(Fields(scale_to_zero_timeout="never")) == {"compute": {"scaling": {"scaleToZeroTimeout": None}}}


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(InvalidRequest, match="number of minutes or the word never"):
        fields.body(Fields(scale_to_zero_timeout="soon"))


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    body = fields.body(Fields(secret=["HF_TOKEN", f"OTHER=@{tmp_path / 'token'}"]), {"HF_TOKEN": "from-environment"})
    assert body["model"]["secrets"] == {"HF_TOKEN": "from-environment", "OTHER": "from-file"}


def test_a_secret_on_the_command_line_is_refused_without_repeating_it():
    with pytest.raises(InvalidRequest) as caught:
        fields.body(Fields(secret=["HF_TOKEN=hf_verysecret"]), {})
    assert "hf_verysecret" not in str(caught.value)
    assert "--secret HF_TOKEN" in caught.value.message


def test_a_secret_that_is_nowhere_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidRequest, match="no variable HF_TOKEN"):
        fields.body(Fields(secret=["HF_TOKEN"]), {})
    with pytest.raises(InvalidRequest, match="cannot be read"):
        fields.body(Fields(secret=[f"A=@{tmp_path / 'missing'}"]), {})


def test_set_takes_json_and_falls_back_to_text():
    body = fields.body(Fields(set=["model.settings.llm.dtype=float16", "compute.scaling.maxReplica=3", "route.default=null"]))
    assert body == {
        "model": {"settings": {"llm": {"dtype": "float16"}}},
        "compute": {"scaling": {"maxReplica": 3}},
        "route": {"default": None},
    }


@pytest.mark.parametrize("given", [Fields(set=["nothing"]), Fields(env=["nothing"]), Fields(set=["=3"])])
def test_a_pair_without_a_name_and_a_value_is_refused(given):
    with pytest.raises(InvalidRequest, match="NAME=VALUE"):
        fields.body(given)


def test_set_does_not_go_through_something_that_is_no_object():
    with pytest.raises(InvalidRequest, match="type is not an object"):
        fields.body(Fields(type="public", set=["type.x=1"]))


def test_members_are_a_name_a_model_and_what_else_is_said_of_them():
    given = ["chat=org/model,gpus=2,primary", "code=s3://bucket/code,task=text-generation", "test=,engine=echo"]
    assert fields.body(Fields(member=given))["model"]["members"] == [
        {"name": "chat", "repository": "org/model", "gpus": 2, "primary": True},
        {"name": "code", "repository": "s3://bucket/code", "task": "text-generation"},
        {"name": "test", "image": {"echo": {}}},
    ]


@pytest.mark.parametrize("text", ["chat", "=org/model", "chat=org/model,gpus=two", "chat=org/model,other=1", "chat=org/model,primary=no"])
def test_a_member_that_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidRequest, match="--member takes"):
        fields.body(Fields(member=[text]))
