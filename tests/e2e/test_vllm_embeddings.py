"""A tiny embedding model on real vLLM, through the stock clients."""

import openai
import pytest
from huggingface_hub import InferenceClient
from support.platforms import until


@pytest.fixture(scope="module")
def embedder(vllm_platform, models):
    name = "tiny-embed"
    body = {"repository": str(models("embedder")), "task": "feature-extraction", "image": {"vLLM": {}}}
    vllm_platform.create(name, model=body, wait=False)
    until(lambda: vllm_platform.status(name)["state"] != "pending", 60, what="placed")
    vllm_platform.wait(name, timeout=240)
    yield vllm_platform, name
    vllm_platform.delete(name)


def test_openai_embeddings(embedder):
    platform, name = embedder
    for base, model in ((f"{platform.url}/v1", name), (f"{platform.url}/endpoints/admin/{name}/v1", "odsc-llm")):
        client = openai.OpenAI(base_url=base, api_key=platform.token, max_retries=0, timeout=60)
        found = client.embeddings.create(model=model, input=["hello there", "something else"])
        assert [len(row.embedding) for row in found.data] == [64, 64]
        assert found.data[0].embedding != found.data[1].embedding


def test_hugging_face_feature_extraction(embedder):
    platform, name = embedder
    client = InferenceClient(model=f"{platform.url}/endpoints/admin/{name}", token=platform.token, timeout=60)
    assert client.feature_extraction("hello there").shape[-1] == 64


def test_chat_on_an_embedding_model_is_a_clear_client_error(embedder):
    platform, name = embedder
    answer = platform.chat(name)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]
