"""Dimensions, memory and fit of well-known models, by the fields of their config.json, on instances of known size."""

import pytest
from support.model_configs import BERT_BASE, DEEPSEEK_V3, GEMMA_2_9B, LLAMA_3_8B, LLAMA_3_70B, MIXTRAL, QWEN3_06B, UNKNOWN

from cluster import fit, hardware, model_shape
from cluster import spec as specs
from cluster.model_facts import Facts

GIB = 2**30


def facts(config, weight_bytes=0, **more):
    return Facts("org/model", config=config, weight_bytes=weight_bytes, **more)


def gpu(count=1, gib=79.6, kind="H100", price=0.0):
    return hardware.Instance(
        f"nvidia-{kind.lower()}", count, 8, 8, 8, 8, 1, kind, gpu_memory_bytes=int(gib * GIB) * count, gpu=True, price_per_hour=price
    )


CPU = hardware.Instance("local-cpu", 2, 2, 2, 2, 2, 1, cpus=2, memory_bytes=16 * GIB)


@pytest.mark.parametrize(
    ("config", "billions", "bytes_per_token", "longest"),
    [
        (LLAMA_3_8B, 8.03, 131072, 8192),
        (LLAMA_3_70B, 70.55, 327680, 8192),
        (QWEN3_06B, 0.596, 114688, 40960),
        (MIXTRAL, 46.7, 131072, 32768),
        (DEEPSEEK_V3, 671, 70272, 163840),
        (GEMMA_2_9B, 9.24, 344064, 8192),
        (BERT_BASE, 0.109, 0, 512),
    ],
    ids=["llama-3-8b", "llama-3-70b", "qwen3-0.6b", "mixtral-8x7b", "deepseek-v3", "gemma-2-9b", "bert-base"],
)
def test_parameters_and_cache_of_well_known_models(config, billions, bytes_per_token, longest):
    shape = model_shape.of(config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.02)
    assert fit.cache_bytes(shape, 1, fit.Settings()) == bytes_per_token
    assert (shape.max_length, shape.unknown) == (longest, ())


def test_layers_with_a_window_keep_the_window_and_no_more():
    shape = model_shape.of(GEMMA_2_9B)
    assert [(group.kind, group.count, group.window) for group in shape.cache] == [("full", 21, None), ("sliding", 21, 4096)]
    each = 2 * 8 * 256 * 2
    assert fit.cache_bytes(shape, 8192, fit.Settings()) == 21 * each * 8192 + 21 * each * (4096 - 1 + fit.BLOCK)


def test_layers_that_are_listed_count_as_they_are_listed():
    shape = model_shape.of(LLAMA_3_8B | {"sliding_window": 1024, "layer_types": ["sliding_attention", "full_attention"] * 16})
    assert [(group.kind, group.count) for group in shape.cache] == [("full", 16), ("sliding", 16)]
    recurrent = model_shape.of(LLAMA_3_8B | {"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8})
    assert fit.cache_bytes(recurrent, 1, fit.Settings()) == 8 * 2 * 8 * 128 * 2
    assert "the state of its recurrent layers" in recurrent.unknown


def test_tensor_parallelism_divides_heads_and_repeats_those_that_are_too_few():
    shape = model_shape.of(LLAMA_3_8B)
    whole = fit.cache_bytes(shape, 1000, fit.Settings())
    assert fit.cache_bytes(shape, 1000, fit.Settings(), tensor=8) == whole // 8
    assert fit.cache_bytes(shape, 1000, fit.Settings(), tensor=16) == whole // 8
    latent = model_shape.of(DEEPSEEK_V3)
    assert fit.cache_bytes(latent, 1000, fit.Settings(), tensor=8) == fit.cache_bytes(latent, 1000, fit.Settings())


def test_a_cache_of_fp8_takes_half():
    shape = model_shape.of(LLAMA_3_8B)
    assert fit.cache_bytes(shape, 10, fit.Settings(kv_cache_dtype="fp8")) == fit.cache_bytes(shape, 10, fit.Settings()) // 2


@pytest.mark.parametrize(
    ("config", "stored", "settings", "gigabytes"),
    [
        (LLAMA_3_8B, {"weight_bytes": 16_060_000_000}, {}, 16.06),
        (LLAMA_3_8B, {}, {}, 16.06),
        (GEMMA_2_9B, {"weight_bytes": 36_970_000_000}, {}, 18.5),
        (GEMMA_2_9B, {"tensors": {"F32": 9_241_705_984}}, {}, 18.5),
        (LLAMA_3_8B, {"tensors": {"BF16": 8_030_261_248}}, {"dtype": "float32"}, 32.1),
        (DEEPSEEK_V3, {"weight_bytes": 688_600_000_000}, {}, 688.6),
        (LLAMA_3_8B, {}, {"quantization": "fp8"}, 9.08),
        (LLAMA_3_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}, {"weight_bytes": 5_700_000_000}, {}, 5.7),
    ],
)
def test_weights_as_they_are_held(config, stored, settings, gigabytes):
    found = fit.weights_bytes(model_shape.of(config), facts(config, **stored), fit.Settings(**settings))
    assert found / 1e9 == pytest.approx(gigabytes, rel=0.01)


def fits(config, instance, settings=None, measured=None, **stored):
    return fit.of(model_shape.of(config), facts(config, **stored), settings or fit.Settings(), instance, measured)


@pytest.mark.parametrize(
    ("config", "instance", "expected", "words"),
    [
        (LLAMA_3_8B, gpu(), True, "context of 8192 tokens"),
        (LLAMA_3_8B, gpu(gib=22.5, kind="L4"), True, "requests of that length at once"),
        (LLAMA_3_8B, gpu(gib=15, kind="T4"), False, "the weights take 16.1 GB"),
        (LLAMA_3_70B, gpu(), False, "Does not fit"),
        (LLAMA_3_70B, gpu(2, 40, "A100"), False, "on each accelerator"),
        (LLAMA_3_70B, gpu(2), True, "2.99 requests of that length"),
        (LLAMA_3_70B, gpu(4), True, "estimated"),
        (QWEN3_06B, gpu(gib=15, kind="T4"), True, "40960"),
        (QWEN3_06B, CPU, True, "of the model's 40960 tokens"),
        (LLAMA_3_8B, CPU, False, "Does not fit"),
        (DEEPSEEK_V3, gpu(8), False, "Does not fit"),
        (DEEPSEEK_V3, gpu(8, 140.4, "H200"), True, "Fits"),
        (MIXTRAL, gpu(), False, "Does not fit"),
        (MIXTRAL, gpu(2), True, "32768"),
        (BERT_BASE, CPU, True, "keeps no cache"),
        (UNKNOWN, gpu(), None, "not known"),
        (LLAMA_3_8B, gpu(gib=0, kind="NEW"), None, "gpuMemoryGb"),
    ],
)
def test_what_fits_where(config, instance, expected, words):
    found = fits(config, instance)
    assert found.fits is expected and words in found.verdict, found.verdict


def test_what_the_configuration_of_an_unknown_architecture_does_not_say_is_named():
    shape = model_shape.of(UNKNOWN)
    assert shape.architecture == "NovelForCausalLM"
    assert {"num_hidden_layers", "hidden_size", "num_attention_heads"} <= set(shape.unknown)
    assert fits(UNKNOWN, gpu(), weight_bytes=10**10).fits is None


def test_heads_that_cannot_be_divided_are_served_by_copies():
    config = QWEN3_06B | {"num_attention_heads": 14, "num_key_value_heads": 2}
    found = fits(config, gpu(4))
    assert (found.tensor, found.data, found.needs_parallel) == (2, 2, True)
    said = fits(config, gpu(4), fit.Settings(tensor=4))
    assert said.fits is False and "14 attention heads" in said.verdict


def test_a_context_that_is_asked_for_and_does_not_fit_is_refused_with_the_longest_that_does():
    found = fits(LLAMA_3_8B | {"max_position_embeddings": 131072}, gpu(gib=22.5, kind="L4"), fit.Settings(max_model_len=131072))
    assert found.fits is False and 4096 < found.max_model_len < 40000
    assert found.remedies == (f"maxModelLen of at most {found.max_model_len}",)


def test_what_would_make_it_fit_is_said():
    rows = [gpu(), gpu(2)]
    found = {one.instance.size: one for one in fit.recommend(model_shape.of(LLAMA_3_70B), facts(LLAMA_3_70B), fit.Settings(), rows)}
    assert found["x1"].remedies == ("size x2", "quantization fp8 (72.7 GB)")
    assert found["x2"].fits and found["x2"].remedies == ()


def test_types_are_ranked_by_cost_and_by_speed():
    rows = [gpu(gib=22.5, kind="L4", price=0.8), gpu(price=4), gpu(2, price=8)]
    places = fit.ranked(fit.recommend(model_shape.of(QWEN3_06B), facts(QWEN3_06B), fit.Settings(), rows))
    assert places["nvidia-l4", "x1"] == {"cost": 1, "performance": 3}
    assert places["nvidia-h100", "x2"] == {"cost": 3, "performance": 1}


def test_what_was_measured_takes_the_place_of_the_estimate():
    measured = fit.Measured(weights_bytes=17 * 10**9, cache_tokens=40960, max_model_len=8192, concurrency=5.0)
    found = fits(LLAMA_3_8B, gpu(gib=22.5, kind="L4"), measured=measured)
    assert (found.weights, found.concurrency, found.concurrency_4k) == (17 * 10**9, 5.0, 10.0)
    assert found.measured and "(measured)" in found.verdict


def test_settings_are_read_from_fields_and_flags():
    model = specs.Model.model_validate(
        {"settings": {"llm": {"maxModelLen": 4096, "kvCacheDtype": "fp8"}}, "args": ["--gpu-memory-utilization", "0.5", "-tp", "2"]}
    )
    found = fit.Settings.of(model)
    assert (found.max_model_len, found.kv_cache_dtype, found.utilization, found.tensor) == (4096, "fp8", 0.5, 2)
    assert found.signature != fit.Settings.of(specs.Model()).signature


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 2**60, "layer_types": "x", "architectures": "y", "quantization_config": 3, "rope_scaling": []},
        {"text_config": {"text_config": {}}, "num_attention_heads": -1, "vocab_size": "many", "torch_dtype": 5},
        {"architectures": [], "quantization_config": {"config_groups": {"a": 1}}, "hybrid_override_pattern": "M*-" * 10**6},
        {"architectures": [None], "num_attention_heads": 0.5, "head_dim": True, "sliding_window": "all"},
    ],
)
def test_nonsense_in_a_configuration_is_unknown_and_no_error(config):
    shape = model_shape.of(config)
    assert shape.unknown
    assert fit.of(shape, facts(config), fit.Settings(), gpu()).fits is None
