"""What a model's author says of hardware and flags (config/deployment_config.json), and how far it goes."""

import pytest
from support.api import refused
from support.model_configs import LLAMA_3_8B

from cluster import admission, deployment_config, fit, measuring, records
from cluster import spec as specs
from cluster.model_facts import Facts

CONFIG = {
    "shape": ["local-cpu", "nvidia-h200.x2", "VM.GPU.A10.2"],
    "configuration": {
        "local-cpu": {
            "parameters": {"VLLM_PARAMS": "--max-model-len 2048 --enforce-eager --host 0.0.0.0", "TGI_PARAMS": "--sharded true"},
            "multi_model_deployment": [{"gpu_count": 1}],
        },
        "nvidia-h200": {"parameters": {"VLLM_PARAMS": "--max-num-seqs 8"}},
    },
}


@pytest.fixture
def offered(api):
    api.models["org/model"] = Facts("org/model", config=LLAMA_3_8B, deployment_config=CONFIG, weight_bytes=10**9)
    return api


def create(api, name="demo-chat", compute=None, **model):
    return api.call("POST", "", {"name": name, "model": {"repository": "org/model", **model}, "compute": compute or {}})


def replica_args(api, name="demo-chat"):
    row = api.control.store.endpoint("admin", name)
    newest = api.control.store.revisions(row.id)[-1]
    return list(admission.replica_spec(row, newest, api.control.instances(), api.control.settings).model.get("args", ()))


def test_the_authors_flags_for_the_instance_are_used_and_noted_where_they_cannot_be(offered):
    made = create(offered).json()
    assert made["model"]["args"] == [], "what the user said stays what the user said"
    assert replica_args(offered) == ["--max-model-len", "2048", "--enforce-eager"]
    notes = " ".join(made["warnings"])
    assert "--host 0.0.0.0 is not used" in notes and "TGI_PARAMS is not vLLM's" in notes and "multi_model_deployment" in notes


def test_the_users_own_flags_win(offered):
    create(offered, args=["--max-model-len", "4096"])
    assert replica_args(offered) == ["--enforce-eager", "--max-model-len", "4096"]
    create(offered, "other-chat", settings={"llm": {"maxModelLen": 1024}})
    assert replica_args(offered, "other-chat") == ["--enforce-eager"]


def test_flags_of_another_instance_come_with_a_move_to_it(offered):
    create(offered)
    offered.call("PUT", "/demo-chat", {"compute": {"instanceType": "nvidia-h200", "instanceSize": "x2"}})
    assert replica_args(offered) == ["--max-num-seqs", "8"]


def test_instance_types_that_the_author_leaves_out_are_refused(offered):
    told = refused(create(offered, compute={"instanceType": "nvidia-h200", "instanceSize": "x1"}), 400, "invalid_request")
    assert "local-cpu, nvidia-h200.x2" in told
    assert create(offered, compute={"instanceType": "nvidia-h200", "instanceSize": "x2"}).status_code == 200


def test_a_file_about_another_clouds_shapes_restricts_nothing(offered):
    config = {"shape": ["VM.GPU.A10.2"], "configuration": {"VM.GPU.A10.2": {"parameters": {"VLLM_PARAMS": "--enforce-eager"}}}}
    offered.models["org/model"] = Facts("org/model", config=LLAMA_3_8B, deployment_config=config)
    made = create(offered, compute={"instanceType": "nvidia-h200"}).json()
    assert any("names no instance type of this cluster" in note for note in made["warnings"])
    assert replica_args(offered) == []


def test_the_advice_stays_while_the_repository_cannot_be_read(offered):
    create(offered)
    offered.models.clear()
    offered.control.models._surveyor._kept.clear()
    offered.call("PUT", "/demo-chat", {"model": {"env": {"A": "1"}, "args": ["--max-model-len", "512"]}})
    assert replica_args(offered) == ["--enforce-eager", "--max-model-len", "512"]


def test_a_plan_counts_with_the_authors_flags(offered):
    plan = offered.call("POST", "?dryRun=true", {"model": {"repository": "org/model"}}).json()
    assert plan["fit"]["instance"]["maxModelLen"] <= 2048


def test_measurements_are_those_of_the_settings_with_the_authors_flags(offered):
    create(offered)
    row = offered.control.store.endpoint("admin", "demo-chat")
    found = measuring.measurement(offered.control.store.revisions(row.id)[0], {"cacheTokens": 5}, 1.0)
    same = specs.Model.model_validate({"repository": "org/model", "args": ["--max-model-len", "2048", "--enforce-eager"]})
    assert found.settings == fit.Settings.of(same).signature
    assert isinstance(found, records.Measurement)


@pytest.mark.parametrize(
    "config",
    [
        {"shape": "local-cpu", "configuration": []},
        {"shape": [3], "configuration": {"local-cpu": []}},
        {"configuration": {"local-cpu": {"parameters": {"VLLM_PARAMS": '--max-model-len "unclosed'}}}},
        {"configuration": {"local-cpu": {"parameters": {"VLLM_PARAMS": ["--max-model-len"]}}}},
        {"configuration": {"local-cpu": {"parameters": "--max-model-len 3"}}},
        {"configuration": {"local-cpu": {"parameters": {"VLLM_PARAMS": "--no-such-flag"}}}},
    ],
)
def test_nonsense_in_the_file_is_a_note_at_most(config):
    spec = specs.EndpointSpec.model_validate({"name": "demo-chat", "model": {"repository": "org/model"}})
    assert deployment_config.advise(config, spec, (), specs.Placement()).args == ()
