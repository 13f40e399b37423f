"""How vLLM is started for a replica: command line and environment."""

import dataclasses

import pytest

from cluster import errors, spec
from deployments.engine import Site
from deployments.llm import Llm
from deployments.vllm_api import UNIPROC_EXECUTOR


@pytest.fixture
def launch(tmp_path):
    site = Site("10.0.0.5", 4711, tmp_path / "model", tmp_path, tmp_path / "cache")

    def launch(placement=None, where=site, **model):
        fields = {"repository": "a/b", "image": {"vLLM": {}}, **model}
        replica = spec.ReplicaSpec(
            application="ns--chat--r1",
            namespace="ns",
            endpoint="chat",
            revision=1,
            engine="llm",
            model=fields,
            placement=placement or spec.Placement(),
        )
        return Llm().launch(replica, where)

    launch.site = site
    return launch


def value(made, flag):
    return made.command[made.command.index(flag) + 1]


def test_server_listens_where_told_behind_the_guard_under_the_endpoints_name(launch):
    made = launch()
    assert (value(made, "--host"), value(made, "--port")) == ("10.0.0.5", "4711")
    assert value(made, "--middleware") == "deployments.guard.Guard"
    assert value(made, "--served-model-name") == "chat"
    assert value(made, "--model") == str(launch.site.model)
    assert made.environment["VLLM_PLUGINS"] == "moorage"
    assert made.environment["HF_HUB_OFFLINE"] == "1"


def test_cpu_replica_runs_in_one_process_with_a_bounded_cache(launch):
    made = launch(spec.Placement(cpus=3))
    assert value(made, "--distributed-executor-backend") == UNIPROC_EXECUTOR
    assert 256 << 20 <= int(value(made, "--kv-cache-memory-bytes")) <= 1 << 30
    assert made.environment["OMP_NUM_THREADS"] == "3"
    assert "--tensor-parallel-size" not in made.command


@pytest.mark.parametrize("args", [[], ["--enable-sleep-mode"]])
def test_an_engine_that_may_sleep_is_started_with_its_sleep_mode_once(launch, args):
    gpu = spec.Placement(gpus=1, bundles=({"CPU": 1, "GPU": 1},))
    assert "--enable-sleep-mode" not in launch(gpu).command
    made = launch(gpu, settings={"system": {"sleepTimeout": 5}}, args=args)
    assert made.command.count("--enable-sleep-mode") == 1


def test_gpu_replica_has_no_cpu_settings(launch):
    made = launch(spec.Placement(gpus=1, bundles=({"CPU": 1, "GPU": 1},)))
    assert "--kv-cache-memory-bytes" not in made.command
    assert "--distributed-executor-backend" not in made.command
    assert not {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"} & set(made.environment)


def test_replica_of_several_gpus_on_one_node_uses_processes(launch):
    made = launch(spec.Placement(gpus=4, bundles=({"CPU": 1, "GPU": 4},)))
    assert value(made, "--distributed-executor-backend") == "mp"
    assert value(made, "--tensor-parallel-size") == "4"
    assert made.environment["VLLM_HOST_IP"] == "127.0.0.1"


def test_replica_across_nodes_uses_ray_on_the_replicas_own_claim(launch):
    across = spec.Placement(gpus=2, bundles=({"GPU": 1}, {"GPU": 1}), strategy="PACK")
    claim = {"RAY_ADDRESS": "10.0.0.1:6379", "MOORAGE_PLACEMENT_GROUP": "ab"}
    made = launch(across, dataclasses.replace(launch.site, ray=claim), image={"vLLM": {"pipelineParallelSize": 2}})
    assert value(made, "--distributed-executor-backend") == "ray"
    assert (value(made, "--tensor-parallel-size"), value(made, "--pipeline-parallel-size")) == ("1", "2")
    assert made.environment["VLLM_HOST_IP"] == "10.0.0.5"
    assert claim.items() <= made.environment.items()
    with pytest.raises(errors.InvalidRequest, match="placement group"):
        launch(across)


def test_typed_settings_become_flags(launch):
    settings = {
        "llm": {"dtype": "bfloat16", "trustRemoteCode": False, "maxModelLen": 512, "allowPickle": True},
        "system": {"kvCacheMemoryBytes": "64M"},
    }
    made = launch(settings=settings)
    assert value(made, "--dtype") == "bfloat16"
    assert value(made, "--kv-cache-memory-bytes") == "64M"
    assert made.command.count("--max-model-len") == 1
    assert "--no-trust-remote-code" in made.command
    assert not any("pickle" in word for word in made.command)


def test_chat_template_travels_in_a_file(launch, tmp_path):
    made = launch(settings={"tokenizer": {"chatTemplate": "{{ messages }}"}})
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    assert value(made, "--chat-template") == str(tmp_path / "chat_template.jinja")


def test_args_of_the_user_come_last_and_replace_defaults(launch):
    made = launch(args=["--max-model-len", "99", "--max-num-seqs", "4"])
    assert made.command[-4:] == ("--max-model-len", "99", "--max-num-seqs", "4")
    assert "auto" not in made.command


def test_media_come_from_where_the_operator_allows_and_from_nowhere_otherwise(launch):
    assert value(launch(), "--allowed-media-domains") == "media.invalid"
    assert (
        value(launch(where=dataclasses.replace(launch.site, media_hosts=("images.example",))), "--allowed-media-domains")
        == "images.example"
    )


@pytest.mark.parametrize(
    ("task", "runner"),
    [("text-generation", "generate"), ("feature-extraction", "pooling"), ("text-ranking", "pooling"), (None, None), ("other", None)],
)
def test_task_chooses_the_runner(launch, task, runner):
    made = launch(task=task) if task else launch()
    assert (value(made, "--runner") if "--runner" in made.command else None) == runner


def test_settings_that_cannot_be_are_refused_at_the_node_too(launch):
    with pytest.raises(errors.InvalidRequest):
        launch(args=["--middleware", "os.system"])
    with pytest.raises(errors.InvalidRequest):
        launch(env={"LD_PRELOAD": "/tmp/x.so"})


def test_loader_that_is_not_installed_is_named_with_its_package(launch):
    with pytest.raises(errors.InvalidRequest, match="pip install runai-model-streamer") as refused:
        launch(settings={"llm": {"loadFormat": "runai_streamer"}})
    assert refused.value.param == "model.settings.llm.loadFormat"
    with pytest.raises(errors.InvalidRequest, match="pip install fastsafetensors"):
        launch(args=["--load-format", "fastsafetensors"])


def test_compile_cache_is_kept_unless_told_otherwise(launch):
    assert "VLLM_DISABLE_COMPILE_CACHE" not in launch().environment
    assert launch(settings={"system": {"compileCache": False}}).environment["VLLM_DISABLE_COMPILE_CACHE"] == "1"
