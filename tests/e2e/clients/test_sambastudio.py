"""LangChain's SambaStudio client against real vLLM behind the edge."""

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def studio(chat_endpoint):
    from langchain_community.llms.sambanova import SambaStudio

    platform, name = chat_endpoint

    def make(path, **options):
        made = {"max_tokens": 6, "temperature": 0.01, "do_sample": False, **options}
        url = f"{platform.url}/{path}/admin/{name}"
        return SambaStudio(sambastudio_url=url, sambastudio_api_key=platform.token, model_kwargs=made)

    return make


@pytest.mark.parametrize("path", ["api/predict/generic", "api/v2/predict/generic"])
@pytest.mark.parametrize("processed", [False, True])
def test_generic_predict_streaming_and_not(studio, path, processed):
    whole = studio(path, process_prompt=processed).invoke("Once upon")
    assert whole
    assert "".join(studio(path, process_prompt=processed).stream("Once upon")) == whole


def test_its_openai_url(studio, chat_endpoint):
    _, name = chat_endpoint
    platform = chat_endpoint[0]
    answer = platform.fetch(
        f"/openai/v1/admin/{name}/chat/completions",
        "POST",
        {"model": "any", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    )
    assert answer.json()["object"] == "chat.completion"


def test_batches_stop_sequences_and_refusals(chat_endpoint):
    platform, name = chat_endpoint
    url = f"/api/v2/predict/generic/admin/{name}"
    body = {"items": [{"id": "a", "value": "Once"}, {"id": "b", "value": "upon"}], "params": {"max_tokens_to_generate": 3}}
    found = platform.fetch(url, "POST", body).json()
    assert [item["id"] for item in found["items"]] == ["a", "b"]
    assert all(item["value"]["completion_tokens_count"] <= 3 for item in found["items"])
    refused = platform.fetch(url, "POST", {"items": [{"id": "a", "value": "x"}], "params": {"nonsense": 1}})
    assert (refused.status_code, "nonsense" in refused.json()["error"]["message"]) == (400, True)
