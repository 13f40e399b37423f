"""What is told before anything starts: fit, cost, task and refusals, by dry runs, creation and `moorage plan`."""

import pytest
from support.api import refused
from support.cli import runner
from support.model_configs import BERT_BASE, LLAMA_3_8B, LLAMA_3_70B

from cluster import fit, instance_types, records
from cluster import spec as specs
from cluster.api import schemas
from cluster.model_facts import Facts

ON_GPU = {"instanceType": "nvidia-h200", "instanceSize": "x1"}


@pytest.fixture
def known(api):
    """`known(repository, config, ...)` makes a repository that can be looked at."""

    def add(repository, config, **fields):
        api.models[repository] = Facts(repository, config=config, **fields)

    add("meta/llama-8b", LLAMA_3_8B, weight_bytes=16_060_000_000, weight_files=4, version="c0ffee")
    return add


def plan(api, model, compute=None, method="POST", path=""):
    answer = api.call(method, f"{path}?dryRun=true", {"name": "demo-chat", "model": model, "compute": compute or {}})
    assert answer.status_code == 200, answer.text
    schemas.Plan.model_validate(answer.json())
    return answer.json()


def test_a_plan_tells_what_fits_where_and_changes_nothing(api, known):
    found = plan(api, {"repository": "meta/llama-8b"}, ON_GPU)
    model = found["fit"]["model"]
    assert (model["architecture"], model["task"], model["version"], model["modelSizeGb"]) == (
        "LlamaForCausalLM", "text-generation", "c0ffee", 16.06,
    )  # fmt: skip
    own = found["fit"]["instance"]
    assert own["fits"] and own["maxModelLen"] == 8192 and own["batchSize"] > 50 and own["ranking"] == {"cost": 3, "performance": 2}
    rows = {(row["instanceType"], row["instanceSize"]): row for row in found["fit"]["instances"]}
    assert rows["nvidia-h200", "x2"]["ranking"]["performance"] == 1
    assert rows["local-cpu", "x1"]["fits"] is False and "Does not fit" in rows["local-cpu", "x1"]["verdict"]
    assert api.call("GET", "").json()["items"] == []


def test_a_plan_tells_the_cost(api, known):
    types = instance_types.parse("instanceTypes: [{name: nvidia-h200, pricePerHour: 2.5}]")
    api.control.types = lambda: types
    body = {**ON_GPU, "instanceSize": "x2", "scaling": {"minReplica": 2, "maxReplica": 4}}
    cost = plan(api, {"repository": "meta/llama-8b"}, body)["cost"]
    assert cost == {"perHour": 10.0, "perMonth": 7300.0, "replicas": 2, "perHourAtMost": 20.0, "atZero": False}


def test_what_does_not_fit_is_a_warning_that_says_what_would(api, known):
    known("meta/llama-70b", LLAMA_3_70B | {"torch_dtype": "bfloat16"}, weight_bytes=141_000_000_000)
    found = plan(api, {"repository": "meta/llama-70b"}, ON_GPU)
    assert any("What would fit: size x2" in warning for warning in found["warnings"])
    made = api.call("POST", "", {"model": {"repository": "meta/llama-70b"}, "compute": ON_GPU}).json()
    assert any("What would fit: size x2" in warning for warning in made["warnings"])


def test_a_model_that_cannot_be_read_is_said_in_a_plan_and_stops_no_creation(api, known):
    found = plan(api, {"repository": "org/away"})
    assert found["fit"] is None and any("SourceUnreachable" in warning for warning in found["warnings"])
    made = api.create(model={"repository": "org/away"})
    assert made["model"]["task"] is None and made["warnings"] == []


def test_a_problem_that_the_look_found_is_told_at_creation(api, known):
    known("org/gated", {}, problem="GatedRepository", message="org/gated is gated")
    assert "GatedRepository: org/gated is gated" in api.create(model={"repository": "org/gated"})["warnings"]


@pytest.mark.parametrize(("config", "more", "task"), [(LLAMA_3_8B, {}, "text-generation"), (BERT_BASE, {}, "feature-extraction")])
def test_the_task_is_told_by_the_repository_where_the_user_tells_none(api, known, config, more, task):
    known("org/model", config, **more)
    assert api.create(model={"repository": "org/model"})["model"]["task"] == task
    assert api.create("said-chat", model={"repository": "org/model", "task": "text-ranking"})["model"]["task"] == "text-ranking"


def test_another_repository_brings_its_own_task_unless_one_is_given(api, known):
    known("org/embedder", LLAMA_3_8B, sentence_transformer=True)
    api.create(model={"repository": "meta/llama-8b"})
    assert api.call("PUT", "/demo-chat", {"model": {"repository": "org/embedder"}}).json()["model"]["task"] == "feature-extraction"
    changed = api.call("PUT", "/demo-chat", {"model": {"repository": "org/away"}}).json()
    assert changed["model"]["task"] == "feature-extraction"
    assert api.call("PUT", "/demo-chat", {"model": {"settings": {"llm": {"maxModelLen": 100}}}}).json()["model"]["task"] == (
        "feature-extraction"
    )


def test_an_architecture_that_vllm_cannot_serve_is_refused_by_its_name(api, known):
    known("org/old", {"architectures": ["Phi3SmallForCausalLM"]})
    told = refused(api.call("POST", "", {"model": {"repository": "org/old"}}), 400, "invalid_request")
    assert "Phi3SmallForCausalLM" in told
    known("org/new", {"architectures": ["NovelThing"]})
    assert any("NovelThing" in warning for warning in api.create(model={"repository": "org/new"})["warnings"])


def test_engines_without_a_model_are_not_looked_at(api, known):
    api.create()
    api.call("PUT", "/demo-chat", {"description": "new"})
    assert not hasattr(api, "looks")


def test_changes_that_do_not_concern_the_model_do_not_look_at_it(api, known):
    api.create(model={"repository": "org/away"})
    looks = len(api.looks)
    api.call("PUT", "/demo-chat", {"description": "new", "compute": {"scaling": {"maxReplica": 2}}})
    assert len(api.looks) == looks
    api.call("PUT", "/demo-chat", {"compute": {"instanceSize": "x2"}})
    assert len(api.looks) == looks + 1


def test_the_look_has_the_endpoints_stored_secrets(api, known):
    api.create(model={"repository": "meta/llama-8b", "secrets": {"HF_TOKEN": "hf_x"}})
    api.call("PUT", "/demo-chat", {"model": {"revision": "v2"}})
    assert api.looks == [("meta/llama-8b", None, {"HF_TOKEN": "hf_x"}), ("meta/llama-8b", "v2", {"HF_TOKEN": "hf_x"})]


def test_a_retry_with_an_idempotency_key_looks_outside_the_transaction(api, known):
    for _ in range(2):
        answer = api.call("POST", "", {"model": {"repository": "meta/llama-8b"}}, headers={"idempotency-key": "k"})
        assert answer.json()["model"]["task"] == "text-generation"
    assert len(api.looks) == 1


def test_what_was_measured_is_shown_as_measured(api, known):
    signature = fit.Settings.of(specs.Model()).signature
    data = {"weightsBytes": 17e9, "cacheTokens": 81920, "maxModelLen": 8192, "concurrency": 10.0}
    api.store.put_measurement(records.Measurement("meta/llama-8b", "", "nvidia-h200", "x1", signature, data))
    own = plan(api, {"repository": "meta/llama-8b"}, ON_GPU)["fit"]["instance"]
    assert (own["measured"], own["modelSizeGb"], own["batchSize"], own["shortBatchSize"]) == (True, 17.0, 10, 20)


def test_moorage_plan_shows_the_model_and_the_types(api, known, monkeypatch, tmp_path):
    moorage = runner(api, monkeypatch, tmp_path)
    shown = moorage("plan", "meta/llama-8b")
    assert "parameters\t8.03 billion" in shown and "MAX_MODEL_LEN" in shown
    lines = [line.split("\t") for line in shown.splitlines() if line.startswith(("nvidia", "local"))]
    assert [line[:3] for line in lines[:2]] == [["local-cpu", "x4", "yes"], ["local-cpu", "x8", "yes"]]
    only = moorage("plan", "meta/llama-8b", "--instance-type", "nvidia-h200")
    assert "local-cpu" not in only
    assert moorage("plan", "meta/llama-8b", "--json")["fit"]["model"]["parameters"] == 8029995008
    assert "architecture\tLlamaForCausalLM" in moorage("endpoints", "create", "--model", "meta/llama-8b", "--dry-run")
