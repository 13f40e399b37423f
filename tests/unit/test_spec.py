"""What users may write about an endpoint."""

import pytest
from pydantic import ValidationError

from cluster import spec


def endpoint(**changes):
    return spec.EndpointSpec.model_validate({"name": "demo-chat", **changes})


@pytest.mark.parametrize("name", ["abc", "Demo-chat", "-abcd", "abcd-", "ab_cd", "a" * 33, "häus", "manage", "demo chat", ""])
def test_illegal_names_are_refused(name):
    with pytest.raises(ValidationError):
        endpoint(name=name)


@pytest.mark.parametrize("name", ["abcd", "a-b4", "a" * 32, "2024-model"])
def test_legal_names_are_kept(name):
    assert endpoint(name=name).name == name


def test_unknown_fields_are_refused_by_name():
    with pytest.raises(ValidationError, match="computee"):
        endpoint(computee={})


def test_the_older_word_protected_means_authenticated():
    assert endpoint(type="protected").type == "authenticated"


def test_minimum_over_maximum_is_refused():
    with pytest.raises(ValidationError, match="minReplica"):
        endpoint(compute={"scaling": {"minReplica": 3, "maxReplica": 2}})


def test_a_committed_plan_keeps_a_replica():
    with pytest.raises(ValidationError, match="committed"):
        endpoint(compute={"plan": "committed", "scaling": {"minReplica": 0}})


@pytest.mark.parametrize("image", [{}, {"vLLM": {}, "echo": {}}, {"llamacpp": {}}, {"vLLM": {"unknownField": 1}}])
def test_an_image_names_exactly_one_known_engine(image):
    with pytest.raises(ValidationError):
        endpoint(model={"image": image})


def test_arguments_may_be_words_pairs_or_objects():
    args = ["--seed", "1", ["--max-num-seqs", "4"], ["--trust-remote-code", ""], {"name": "--dtype", "value": "float32"}]
    parsed = endpoint(model={"args": args}).model.args
    assert parsed == ("--seed", "1", "--max-num-seqs", "4", "--trust-remote-code", "--dtype", "float32")


def test_scaling_is_not_part_of_a_revision_and_the_model_is():
    small, large = endpoint(), endpoint(compute={"scaling": {"maxReplica": 9}}, tags=["x"], description="y")
    assert small.revision_fields() == large.revision_fields()
    assert small.revision_fields() != endpoint(model={"repository": "a/b"}).revision_fields()


def test_secret_values_are_not_part_of_a_revision():
    fields = endpoint(model={"secrets": {"HF_TOKEN": "hf_verysecret"}}).revision_fields()
    assert fields["model"]["secrets"] == ["HF_TOKEN"]
    assert "verysecret" not in repr(endpoint(model={"secrets": {"HF_TOKEN": "hf_verysecret"}}))


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("Qwen/Qwen3-0.6B", "qwen3-0-6b"),
        ("s3://bucket/models/My_Model/", "my-model"),
        ("/srv/models/abc", "abc-model"),
        ("a/" + "x" * 60, "x" * 28),
    ],
)
def test_a_name_is_suggested_from_the_model(repository, name):
    assert spec.suggest_name(repository) == name
    assert endpoint(name=spec.suggest_name(repository))


def test_application_names_are_read_back():
    name = spec.application_name("team-a", "demo-chat", 12)
    assert spec.parse_application_name(name) == ("team-a", "demo-chat", 12)
    assert spec.parse_application_name(spec.application_name("team-a", "demo--chat", 3)) == ("team-a", "demo--chat", 3)
    assert spec.parse_application_name("manager") is None
    assert spec.parse_application_name("mine--r3") is None
