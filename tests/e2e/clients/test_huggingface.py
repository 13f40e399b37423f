"""huggingface_hub's InferenceClient against real vLLM behind the edge."""

import re

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError

MESSAGES = [{"role": "user", "content": "Say something."}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def client_of(endpoint):
    platform, name = endpoint
    return InferenceClient(model=f"{platform.url}/endpoints/admin/{name}", token=platform.token, timeout=120)


def test_chat_and_text_generation(chat_endpoint):
    platform, name = chat_endpoint
    url = f"{platform.url}/endpoints/admin/{name}"
    client = InferenceClient(base_url=url, api_key=platform.token, timeout=120)
    assert client.chat_completion(MESSAGES, max_tokens=4).choices
    client = InferenceClient(model=url, token=platform.token, timeout=120)
    assert isinstance(client.text_generation("Once upon", max_new_tokens=4), str)
    pieces = list(client.text_generation("Once upon", max_new_tokens=4, stream=True, details=True))
    assert pieces[-1].generated_text is not None
    assert len(pieces) <= 4


def test_details_have_every_token(chat_endpoint):
    found = client_of(chat_endpoint).text_generation("Once upon", max_new_tokens=3, details=True, seed=3, do_sample=True)
    assert found.details.generated_tokens == len(found.details.tokens) == 3
    assert all(token.logprob <= 0 for token in found.details.tokens)
    assert (found.details.finish_reason, found.details.seed) == ("length", 3)


def test_a_schema_binds_the_answer_though_the_client_rewrites_it(chat_endpoint):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    answer = client_of(chat_endpoint).chat_completion(MESSAGES, max_tokens=60, temperature=1, seed=2, response_format=form)
    assert re.match(r'\{"n": ?-?\d', answer.choices[0].message.content)


def test_a_bad_parameter_is_told_in_its_words(chat_endpoint):
    with pytest.raises(ValidationError, match="max_tokens"):
        client_of(chat_endpoint).text_generation("Once upon", max_new_tokens=100_000)


def test_feature_extraction_and_sentence_similarity(embedder):
    client = client_of(embedder)
    assert client.feature_extraction("hello there").shape[-1] == 64
    assert client.feature_extraction("hello there", normalize=True, truncate=True).shape[-1] == 64
    same, other = client.sentence_similarity("hello there", other_sentences=["hello there", "import os"])
    assert same == pytest.approx(1.0, abs=1e-3)
    assert other < same


def test_text_classification(served):
    with served("classifier", "text-classification") as endpoint:
        found = client_of(endpoint).text_classification("I like you", top_k=3)
        assert {element.label for element in found} == {"negative", "neutral", "positive"}
        assert sum(element.score for element in found) == pytest.approx(1.0, abs=1e-2)
        platform, name = endpoint
        plain = platform.fetch(f"/endpoints/admin/{name}/predict", "POST", {"input": "I like you"})
        assert plain.json()["data"][0]["label"] == found[0].label
