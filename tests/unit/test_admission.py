"""What may be an endpoint here, and what a replica of it claims: as tables, on made-up hardware."""

import pytest

from cluster import admission, engine_kinds, errors, hardware, images, observation, records
from cluster import spec as specs
from cluster.observation import Node
from cluster.settings import Settings

SETTINGS = Settings(home="/srv/moorage", model_paths="/models:/more/models/")
CLUSTER = observation.Cluster(
    nodes=(Node("c", "a", 4, 4), Node("g1", "b", 16, 16, 4, 4, "H200"), Node("g2", "c", 16, 16, 4, 1, "H200")),
)
LLM = {"repository": "org/model", "image": {"vLLM": {}}}


def gpu(size="x1", kind="nvidia-h200"):
    return {"accelerator": "gpu", "instanceType": kind, "instanceSize": size}


def admit(cluster=CLUSTER, **fields):
    return admission.admit(admission.read({"name": "some-name", "model": LLM, **fields}), cluster, SETTINGS)


def test_an_unknown_field_is_named_with_the_field_that_was_probably_meant():
    with pytest.raises(errors.InvalidRequest, match="did you mean instanceType") as refusal:
        admission.read({"name": "some-name", "compute": {"instanceTyp": "x"}})
    assert refusal.value.param == "compute.instanceTyp"


def test_field_names_of_python_are_unknown_on_the_wire():
    with pytest.raises(errors.InvalidRequest) as refusal:
        admission.read({"name": "some-name", "compute": {"instance_type": "local-cpu"}})
    assert refusal.value.param == "compute.instance_type"


def test_a_refusal_never_repeats_a_secret_value():
    with pytest.raises(errors.InvalidRequest) as refusal:
        admission.read({"name": "some-name", "model": {"secrets": {"TOKEN": ["hunter2"]}}})
    assert "hunter2" not in str(refusal.value)
    assert refusal.value.param == "model.secrets.TOKEN"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"provider": {"vendor": "aws"}}, "provider.vendor", "local"),
        ({"provider": {"region": "eu"}}, "provider.region", "local"),
        ({"privateService": {"accountId": "1", "region": "x"}}, "privateService", "type to private"),
        ({"route": {"domain": "a.example"}}, "route", "leave route.domain"),
        ({"route": {"default": "/metrics"}}, "route.default", "/v1/chat/completions"),
        ({"model": {**LLM, "env": {"MODEL_DEPLOY_PREDICT_ENDPOINT": "/predict"}}}, "model.env", "no route"),
        ({"compute": gpu(kind="nvidia-b9")}, "compute.instanceType", "local-cpu, nvidia-h200"),
        ({"compute": gpu("x3")}, "compute.instanceSize", "x1, x2, x4"),
        ({"compute": {**gpu(), "accelerator": "cpu"}}, "compute.accelerator", "gpu"),
        ({"model": {"repository": "a/b", "task": "image-to-video"}}, "model.task", "not offered"),
        ({"model": {"image": {"vLLM": {}}}}, "model.repository", "missing"),
        (
            {"model": {**LLM, "image": {"vLLM": {"tensorParallelSize": 3}}}, "compute": gpu("x4")},
            "model.image.vLLM.tensorParallelSize",
            "must be 4 together",
        ),
        ({"model": {**LLM, "args": ["-pp", "8"]}, "compute": gpu("x4")}, "model.image.vLLM.tensorParallelSize", "must be 4 together"),
        ({"model": {**LLM, "image": {"vLLM": {"dataParallelSize": 2}}}, "compute": gpu("x8")}, "model.image.vLLM", "within one node"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_and_what_would_be_right(fields, param, words):
    with pytest.raises(errors.InvalidRequest) as refusal:
        admit(**fields)
    assert refusal.value.param == param
    assert words in refusal.value.message


GOOD = [
    "gpt2",
    "Qwen/Qwen3-0.6B",
    "a/b_c.d-e",
    "s3://bucket/some/prefix",
    "s3://bucket",
    "/models/x",
    "/more/models/a/b",
    "/srv/moorage/models/x",
]
BAD = [
    "not a repo!",
    "a/b/c",
    "-a/b",
    "a--b/c",
    "a/..",
    "https://huggingface.co/a/b",
    "s3://",
    "s3://b/../c",
    "/etc",
    "/models",
    "/modelsx/y",
]
BAD += ["/models/../etc", "model://mine", "a/b\n", "\ud800/x", "a/" + "b" * 200]


@pytest.mark.parametrize("repository", GOOD)
def test_repositories_of_the_three_kinds_are_admitted(repository):
    assert admit(model={**LLM, "repository": repository}).spec.model.repository == repository


@pytest.mark.parametrize("repository", BAD)
def test_anything_else_is_no_repository(repository):
    with pytest.raises(errors.InvalidRequest) as refusal:
        admit(model={**LLM, "repository": repository})
    assert refusal.value.param == "model.repository"


def test_the_echo_engine_needs_no_repository():
    assert admit(model={"image": {"echo": {}}}).warnings == ()


def test_nothing_is_admitted_before_the_hardware_has_been_seen():
    with pytest.raises(errors.Unavailable) as refusal:
        admit(observation.Cluster())
    assert refusal.value.retry_after


@pytest.mark.parametrize(
    ("compute", "bundles", "strategy"),
    [
        ({"instanceSize": "x2"}, ({"CPU": 2.0},), "STRICT_PACK"),
        (gpu("x4"), ({"CPU": 1.0, "GPU": 4.0},), "STRICT_PACK"),
        (gpu("x8"), ({"CPU": 1.0, "GPU": 1.0}, *[{"GPU": 1.0}] * 7), "PACK"),
        # more than the cluster has: a node of the usual size is awaited, or several
        (gpu("x16"), ({"CPU": 1.0, "GPU": 1.0}, *[{"GPU": 1.0}] * 15), "PACK"),
    ],
)
def test_what_fits_one_node_is_one_bundle_and_what_does_not_is_one_gpu_each(compute, bundles, strategy):
    claim = admit(compute=compute).placement
    assert (claim.bundles, claim.strategy) == (bundles, strategy)
    assert claim.accelerator_type == ("H200" if claim.gpus else None)


def test_more_than_the_whole_cluster_has_waits_for_a_node_of_the_usual_size():
    small = observation.Cluster(nodes=(Node("g", "b", 4, 4, 2, 2, "L4"),))
    admitted = admit(small, compute=gpu("x4", "nvidia-l4"))
    assert admitted.placement.bundles == ({"CPU": 1.0, "GPU": 4.0},)
    assert "waits until there is one" in admitted.warnings[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compute": {"instanceSize": "x64"}}, "64 CPUs on one node; the largest has 16"),
        ({"compute": gpu("x8")}, "spread over several nodes"),
        ({"compute": gpu("x16")}, "the largest has 4"),
        ({"cacheHttpResponses": True}, "no effect"),
    ],
)
def test_what_will_not_run_as_expected_is_admitted_with_a_warning(fields, words):
    assert words in " ".join(admit(**fields).warnings)


def test_an_instance_that_is_taken_right_now_is_admitted_with_the_three_figures():
    busy = observation.Cluster(nodes=(Node("g1", "b", 16, 16, 4, 2, "H200"), Node("g2", "c", 16, 16, 4, 1, "H200")))
    assert "needs 4 GPUs on one node; the cluster has 8 in all and the best node has 2 free" in admit(busy, compute=gpu("x4")).warnings[0]


def test_the_accelerator_is_that_of_the_instance_type_when_left_out():
    wire = admission.with_accelerator({"name": "some-name", "compute": {"instanceType": "nvidia-h200"}})
    assert wire["compute"]["accelerator"] == "gpu"
    assert admission.with_accelerator({"name": "some-name"}) == {"name": "some-name"}


def test_suggested_names_are_legal_and_free():
    taken = {"qwen3-0-6b", "qwen3-0-6b-2"}
    assert admission.suggest_name("Qwen/Qwen3-0.6B", taken) == "qwen3-0-6b-3"
    long = admission.suggest_name("org/" + "x" * 90, set())
    again = admission.suggest_name("org/" + "x" * 90, {long})
    for name in (long, again, admission.suggest_name("org/health", set()), admission.suggest_name("", set())):
        assert specs.EndpointSpec(name=name).name == name


def revision(fields, number=3):
    return records.Revision("e1", number, fields)


def endpoint(spec):
    return records.Endpoint("e1", "admin", "some-name", spec.wire(), target=3)


def test_a_revision_is_deployed_as_it_was_admitted_whatever_the_nodes_are_now():
    admitted = admit(model={**LLM, "secrets": {"HF_TOKEN": "hunter2"}}, compute=gpu("x4"))
    fields = admission.revision_fields(admitted)
    found = [
        admission.replica_spec(endpoint(admitted.spec), revision(fields), hardware.instances(seen), SETTINGS)
        for seen in (CLUSTER, observation.Cluster())
    ]
    assert found[0] == found[1]
    assert found[0].placement == admitted.placement
    assert found[0].application == "admin--some-name--r3"
    assert "hunter2" not in found[0].model_dump_json()
    assert "secrets" not in found[0].model


def test_every_variant_has_an_engine():
    assert set(engine_kinds.OF_VARIANT) == set(images.ENGINE_VARIANTS)


def test_an_endpoint_whose_nodes_are_away_can_still_be_changed():
    spec = admission.read({"name": "some-name", "model": LLM, "compute": gpu(kind="nvidia-b9")})
    admitted = admission.admit(spec, CLUSTER, SETTINGS, present="nvidia-b9")
    assert admitted.placement.accelerator_type == "B9"
    assert "the largest has 0" in admitted.warnings[0]


def test_models_of_the_store_that_models_are_pushed_to_may_be_served():
    spec = admission.read({"name": "some-name", "model": {"repository": "/store/tiny/abc"}})
    with pytest.raises(errors.InvalidRequest, match="outside"):
        admission.admit(spec, CLUSTER, SETTINGS)
    admission.admit(spec, CLUSTER, SETTINGS.model_copy(update={"model_store": "/store"}))
