"""Adapters as files and as engine settings: what the first one switches on, and which adapters are refused with which reason."""

import json

import pytest
from support.adapters import lora_shapes, tensors, write_adapter

from cluster import errors, lora
from cluster import spec as specs
from deployments import adapter_files, engines
from deployments.engine import Site

STYLE = {"name": "style", "repository": "org/style"}


def model(**fields):
    return specs.Model.model_validate({"repository": "org/base", "image": {"vLLM": {}}, **fields})


def test_the_first_adapter_switches_lora_on_with_room_for_more():
    llm = lora.switched_on(model(adapters=[STYLE])).settings.llm
    assert (llm.enable_lora, llm.max_lora_rank, llm.max_loras, llm.max_cpu_loras) == (True, 32, 4, 32)


def test_what_the_endpoint_says_itself_is_kept():
    settings = {"llm": {"maxLoraRank": 64, "maxLoras": 40}}
    llm = lora.switched_on(model(adapters=[STYLE], settings=settings, args=["--max-cpu-loras", "50"])).settings.llm
    assert (llm.enable_lora, llm.max_lora_rank, llm.max_loras, llm.max_cpu_loras) == (True, 64, 40, None)
    few = lora.switched_on(model(adapters=[STYLE], settings={"llm": {"maxCpuLoras": 2}})).settings.llm
    assert (few.max_loras, few.max_cpu_loras) == (2, 2)


def test_an_endpoint_without_adapters_or_with_lora_on_is_left_alone():
    for alone in (
        model(),
        model(adapters=[STYLE], args=["--enable-lora"]),
        model(adapters=[STYLE], settings={"llm": {"enableLora": True}}),
    ):
        assert lora.switched_on(alone) == alone


@pytest.mark.parametrize("fields", [{"settings": {"llm": {"enableLora": False}}}, {"args": ["--no-enable-lora"]}])
def test_adapters_where_lora_is_switched_off_are_refused(fields):
    with pytest.raises(errors.InvalidRequest, match="need LoRA"):
        lora.switched_on(model(adapters=[STYLE], **fields))


def test_the_highest_rank_is_the_engines_own_where_nobody_says():
    assert lora.max_rank(model(args=["--enable-lora"])) == 16
    assert lora.max_rank(model(args=["--enable-lora", "--max-lora-rank", "64"])) == 64
    assert lora.max_rank(model(settings={"llm": {"maxLoraRank": 128}})) == 128


def test_vllm_is_started_with_the_flags_and_the_routes_that_loading_needs(tmp_path):
    served = lora.switched_on(model(adapters=[STYLE]))
    replica = specs.ReplicaSpec(application="a", namespace="n", endpoint="chat", revision=1, engine="llm", model=served.wire())
    launch = engines.named("llm").launch(replica, Site("127.0.0.1", 1, tmp_path, tmp_path, tmp_path))
    words = " ".join(launch.command)
    assert "--enable-lora --max-lora-rank 32 --max-loras 4 --max-cpu-loras 32" in words
    assert launch.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    plain = replica.model_copy(update={"model": model().wire()})
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in engines.named("llm").prepare(plain, Site("", 1, None, tmp_path, tmp_path)).environment


def test_a_sound_adapter_passes(tmp_path):
    lora.check_folder("style", write_adapter(tmp_path, rank=32), 32)


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"rank": 48}, "RankTooHigh", "has rank 48, and this endpoint takes up to 32: set model.settings.llm.maxLoraRank to 64"),
        ({"rank_pattern": {"q_proj": 100}}, "RankTooHigh", "maxLoraRank to 128"),
        ({"rank": 1000}, "RankTooHigh", "the most that the engine can take is 512"),
        ({"peft_type": "PREFIX_TUNING"}, "NotAnAdapter", "is no LoRA"),
        ({"r": "eight"}, "NotAnAdapter", "says no rank"),
        ({"r": None}, "NotAnAdapter", "says no rank"),
        ({"use_dora": True}, "UnsupportedAdapter", "DoRA"),
        ({"bias": "all"}, "UnsupportedAdapter", "biases"),
        ({"modules_to_save": ["embed_tokens"]}, "UnsupportedAdapter", "embed_tokens"),
        ({"weights": "adapter_model.bin"}, "PickleRefused", "save it as adapter_model.safetensors"),
        ({"weights": ""}, "NoWeights", "has no adapter_model.safetensors"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_its_reason_and_what_would_do(tmp_path, fields, reason, words):
    with pytest.raises(lora.Refused, match=words) as refusal:
        lora.check_folder("style", write_adapter(tmp_path, **fields), 32)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("content", [None, "{", "[]", "x" * 1_000_001])
def test_a_configuration_that_is_none_is_refused(tmp_path, content):
    folder = write_adapter(tmp_path)
    (folder / lora.CONFIG).unlink()
    if content is not None:
        (folder / lora.CONFIG).write_text(content)
    with pytest.raises(lora.Refused) as refusal:
        lora.check_folder("style", folder, 32)
    assert refusal.value.reason == "NotAnAdapter"


@pytest.fixture
def base(tmp_path):
    """A model of two layers that is 16 wide."""
    folder = tmp_path / "base"
    folder.mkdir()
    shapes = {f"model.layers.{layer}.self_attn.q_proj.weight": (16, 16) for layer in range(2)} | {"model.embed_tokens.weight": (100, 16)}
    (folder / "model.safetensors").write_bytes(tensors(shapes))
    return folder


def test_an_adapter_of_this_model_fits(tmp_path, base):
    adapter = write_adapter(tmp_path / "style", shapes=lora_shapes(layers=(0, 1)))
    adapter_files.check("style", adapter, base)
    adapter_files.check("style", adapter, None)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (lora_shapes(hidden=32), "16 wide in the model and 32 in the adapter"),
        (lora_shapes(layers=(0, 7)), "changes layer 7, and the model has 2"),
    ],
)
def test_an_adapter_of_another_model_is_refused(tmp_path, base, shapes, words):
    with pytest.raises(lora.Refused, match=words) as refusal:
        adapter_files.check("style", write_adapter(tmp_path / "style", shapes=shapes), base)
    assert refusal.value.reason == "WrongBase"


def test_modules_that_the_model_stores_under_another_name_are_the_engines_to_judge(tmp_path, base):
    adapter_files.check("style", write_adapter(tmp_path / "style", shapes=lora_shapes(hidden=32, module="mlp.experts.0.w1")), base)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, (9).to_bytes(8, "little") + b"[1, 2, 3]", (2).to_bytes(8, "little") + b"{}"])
def test_a_header_that_cannot_be_read_is_left_to_the_engine(tmp_path, base, content):
    adapter = write_adapter(tmp_path / "style")
    (adapter / lora.WEIGHTS).write_bytes(content)
    adapter_files.check("style", adapter, base)


def test_a_test_adapter_is_a_safetensors_file_with_the_shapes_it_says(tmp_path):
    assert json.loads((write_adapter(tmp_path) / lora.CONFIG).read_text())["r"] == 8
    assert dict(adapter_files.shapes(tmp_path / lora.WEIGHTS)) == lora_shapes()
