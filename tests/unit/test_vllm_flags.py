"""vLLM settings are checked without vLLM, and the flag is named."""

import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import engine_environment, errors, spec, vllm_flags, vllm_words

CPU = spec.Placement()
GPUS = spec.Placement(gpus=8)


def model(*args, settings=None, vllm=None):
    image = {"vLLM": vllm} if vllm is not None else {"huggingface": {}}
    return spec.Model.model_validate({"repository": "a/b", "args": list(args), "settings": settings or {}, "image": image})


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--max-model-len", "1024"],
        ["--max-model-len=16K"],
        ["--max-model-len", "auto"],
        ["--max-model-len", "-1"],
        ["--max_model_len", "25.6k"],
        ["--seed", "-7"],
        ["--enforce-eager"],
        ["--no-enable-prefix-caching"],
        ["--dtype", "bfloat16"],
        ["-q", "awq"],
        ["--limit-mm-per-prompt", '{"image": 1}'],
        ["--compilation-config.mode", "3"],
        ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'],
        ["--cudagraph-capture-sizes", "1", "2"],
        ["--tool-call-parser", "hermes", "--enable-auto-tool-choice"],
        ["--max-num-seqs", "4", "--max-num-seqs", "4"],
        [{"name": "--max-num-seqs", "value": "4"}, {"name": "--enforce-eager", "value": ""}],
    ],
    ids=str,
)
def test_settings_that_vllm_takes_pass(args):
    vllm_flags.check(model(*args), CPU)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--max-modl-len", "1"], "did you mean --max-model-len"),
        (["--nonsense"], "vLLM has no flag --nonsense"),
        (["--por", "1"], "no flag --por"),
        (["-x"], "no flag -x"),
        (["value"], "'value' stands where a flag should"),
        (["--max-num-seqs", "many"], "--max-num-seqs must be a whole number, not 'many'"),
        (["--max-num-seqs"], "--max-num-seqs needs a value"),
        (["--max-num-seqs", "1", "2"], "'2' stands where a flag should"),
        (["--max-num-seqs", "0"], "--max-num-seqs must be at least 1"),
        (["--max-num-seqs", "-1"], "--max-num-seqs must be at least 1"),
        (["--max-model-len", "0"], "--max-model-len must be at least 1"),
        (["--max-model-len", "-5"], "--max-model-len must be"),
        (["--enforce-eager=true"], "--enforce-eager takes no value"),
        (["--enforce-eager", "true"], "'true' stands where a flag should"),
        (["--dtype", "int3"], "--dtype must be one of auto"),
        (["--gpu-memory-utilization", "1.5"], "--gpu-memory-utilization must be over 0"),
        (["--gpu-memory-utilization", "nan"], "--gpu-memory-utilization must be a number"),
        (["--limit-mm-per-prompt", "{image: 1}"], "--limit-mm-per-prompt must be JSON"),
        (["--enforce-eager", "--no-enforce-eager"], "--enforce-eager is given twice"),
        (["--max-num-seqs", "4", "--max-num-seqs", "5"], "--max-num-seqs is given twice"),
        (["--dtype.x", "1"], "no flag --dtype.x"),
    ],
    ids=str,
)
def test_settings_that_vllm_would_refuse_are_refused_by_name(args, said):
    with pytest.raises(errors.InvalidRequest) as refused:
        vllm_flags.check(model(*args), CPU)
    assert said in refused.value.message
    assert refused.value.param == "model.args"


@pytest.mark.parametrize(
    "args",
    [
        ["--port", "1"],
        ["--port=1"],
        ["--api_key", "x"],
        ["--middleware", "os.system"],
        ["--ssl-keyfile", "/etc/shadow"],
        ["--served-model-name", "x"],
        ["--model", "x"],
        ["--hf-token", "x"],
        ["--chat-template", "/etc/passwd"],
        ["--trust-remote-code"],
        ["--no-trust-remote-code"],
        ["--logits-processors", "os:system"],
        ["--worker-cls", "x"],
        ["--tool-parser-plugin", "x"],
        ["--config", "x"],
        ["--uds", "/tmp/x"],
        ["--profiler-config.profiler", "cuda"],
        ["--compilation-config", '{"pass": {"inductor_passes": {"a": "os.system"}}}'],
        ["--compilation-config.debug-dump-path", "/etc"],
        ["-dpa", "10.0.0.1"],
        ["--allowed-media-domains", "10.0.0.1"],
    ],
    ids=str,
)
def test_settings_that_are_the_platforms_are_refused(args):
    with pytest.raises(errors.InvalidRequest, match="cannot"):
        vllm_flags.check(model(*args), CPU)


def test_every_denied_flag_exists():
    assert set(vllm_flags.DENIED) <= set(vllm_words.flags())
    assert set(vllm_flags.LOWEST) <= set(vllm_words.flags())


def test_typed_setting_and_the_same_flag_must_agree():
    settings = {"llm": {"maxModelLen": 1024}}
    vllm_flags.check(model("--max-model-len", "1K", settings=settings), CPU)
    with pytest.raises(errors.InvalidRequest, match=r"--max-model-len 2048 in model\.args contradicts 1024"):
        vllm_flags.check(model("--max-model-len", "2048", settings=settings), CPU)


def test_wrong_value_of_a_typed_setting_is_refused():
    with pytest.raises(errors.InvalidRequest, match="--dtype must be one of"):
        vllm_flags.check(model(settings={"llm": {"dtype": "int3"}}), CPU)
    with pytest.raises(errors.InvalidRequest, match="--kv-cache-memory-bytes must be a number"):
        vllm_flags.check(model(settings={"system": {"kvCacheMemoryBytes": "much"}}), CPU)


def test_sleeping_needs_accelerators_and_no_contradiction():
    asked = {"system": {"sleepTimeout": 5}}
    vllm_flags.check(model(settings=asked), GPUS)
    vllm_flags.check(model("--enable-sleep-mode", settings=asked), GPUS)
    with pytest.raises(errors.InvalidRequest, match="sleeps on GPUs only") as refused:
        vllm_flags.check(model(settings=asked), CPU)
    assert refused.value.param == "model.settings.system.sleepTimeout"
    with pytest.raises(errors.InvalidRequest, match=r"--no-enable-sleep-mode in model\.args contradicts sleepTimeout"):
        vllm_flags.check(model("--no-enable-sleep-mode", settings=asked), GPUS)


def test_typed_setting_that_this_vllm_lacks_is_refused_by_its_field():
    with pytest.raises(errors.InvalidRequest) as refused:
        vllm_flags.check(model(settings={"system": {"swapSpace": 4}}), CPU)
    assert refused.value.param == "model.settings.system.swap_space"


@pytest.mark.parametrize(
    ("vllm", "args", "placement", "sizes"),
    [
        ({}, [], CPU, (1, 1, 1)),
        ({}, [], GPUS, (8, 1, 1)),
        ({"pipelineParallelSize": 2}, [], GPUS, (4, 2, 1)),
        ({"dataParallelSize": 8}, [], GPUS, (1, 1, 8)),
        ({}, ["-tp", "4", "-dp", "2"], GPUS, (4, 1, 2)),
        ({"tensorParallelSize": 8}, ["--tensor-parallel-size", "8"], GPUS, (8, 1, 1)),
    ],
)
def test_parallel_sizes_use_the_whole_instance(vllm, args, placement, sizes):
    wanted = model(*args, vllm=vllm)
    vllm_flags.check(wanted, placement)
    assert vllm_flags.parallel_sizes(wanted, placement) == sizes


@pytest.mark.parametrize(
    ("vllm", "args", "placement"),
    [
        ({"tensorParallelSize": 2}, [], CPU),
        ({"tensorParallelSize": 4}, [], GPUS),
        ({"pipelineParallelSize": 3}, [], GPUS),
        ({"dataParallelSize": 16}, [], GPUS),
        ({"tensorParallelSize": 8}, ["-tp", "4", "-pp", "2"], GPUS),
    ],
)
def test_parallel_sizes_that_do_not_fit_the_instance_are_refused(vllm, args, placement):
    with pytest.raises(errors.InvalidRequest):
        vllm_flags.check(model(*args, vllm=vllm), placement)


@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(sorted(vllm_words.flags())), st.from_regex(r"--[a-z-]{1,12}=?.{0,5}")), max_size=6
    )
)
def test_any_words_either_pass_or_are_refused_as_invalid(words):
    with contextlib.suppress(errors.InvalidRequest):
        vllm_flags.check(spec.Model(repository="a/b", args=tuple(words)), CPU)


@pytest.mark.parametrize("text", ["1", "16K", "1.5k", "2M", "3g", "1T"])
def test_sizes_are_read(text):
    assert vllm_words.size(text) >= 1


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "PYTHONPATH", "VLLM_PLUGINS", "MOORAGE_ENGINE_SECRET", "RAY_ADDRESS", "path", "HTTPS_PROXY"]
)
def test_environment_that_would_change_the_platform_is_refused(name):
    with pytest.raises(errors.InvalidRequest, match=name):
        engine_environment.check(["HF_TOKEN", name])


def test_environment_of_the_users_own_passes():
    engine_environment.check(["HF_TOKEN", "AWS_ACCESS_KEY_ID", "VLLM_ATTENTION_BACKEND", "VLLM_LOGGING_LEVEL", "MY_SETTING"])


@pytest.mark.timeout(180)
def test_table_of_flags_is_that_of_the_installed_vllm(tmp_path):
    made = tmp_path / "flags.json"
    subprocess.run([sys.executable, "-m", "deployments.llm_flags", str(made)], check=True, capture_output=True, timeout=170)
    fresh = json.loads(made.read_text())
    assert set(fresh["flags"]) == set(vllm_words.flags())
    for flag, row in vllm_words.flags().items():
        told = {key: row.get(key) for key in ("kind", "nargs", "aliases", "negation", "choices")}
        assert told == {key: fresh["flags"][flag].get(key) for key in told}, flag
