"""OCI Data Science's clients of LangChain against real vLLM behind the edge.

They import `ads`, OCI's own library, for its signers alone: a key of Moorage needs none, so an empty module stands in for it.
"""

import sys
import types

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


def unsigned(request):
    return request


@pytest.fixture
def arguments(chat_endpoint, monkeypatch):
    """Of a client for this route of the endpoint."""
    monkeypatch.setitem(sys.modules, "ads", types.ModuleType("ads"))
    platform, name = chat_endpoint

    def make(route, **more):
        url = f"{platform.url}/endpoints/admin/{name}/{route}"
        return {"endpoint": url, "auth": {"signer": unsigned}, "default_headers": {"Authorization": f"Bearer {platform.token}"}, **more}

    return make


@pytest.mark.parametrize("model", ["odsc-llm", "odsc-vllm"])
def test_chat_streaming_and_not(arguments, model):
    from langchain_community.chat_models import ChatOCIModelDeployment

    options = {"model": model, "model_kwargs": {"max_tokens": 6, "temperature": 0.0}}
    whole = ChatOCIModelDeployment(**arguments("predict", **options)).invoke("Say something.")
    assert whole.content
    streamed = list(ChatOCIModelDeployment(**arguments("predictWithResponseStream", **options, streaming=True)).stream("Say something."))
    assert "".join(chunk.content for chunk in streamed) == whole.content


async def test_chat_asynchronously(arguments):
    from langchain_community.chat_models import ChatOCIModelDeployment

    chat = ChatOCIModelDeployment(
        **arguments("predictWithResponseStream", model="odsc-llm", model_kwargs={"max_tokens": 6}, streaming=True)
    )
    assert [chunk async for chunk in chat.astream("Say something.")]


def test_completions_streaming_and_not(arguments):
    from langchain_community.llms import OCIModelDeploymentLLM

    options = {"model": "odsc-llm", "max_tokens": 6, "temperature": 0.0}
    whole = OCIModelDeploymentLLM(**arguments("predict", **options)).invoke("Once upon")
    assert whole
    streamed = OCIModelDeploymentLLM(**arguments("predictWithResponseStream", **options, streaming=True)).stream("Once upon")
    assert "".join(streamed) == whole


def test_the_default_route_is_chosen_at_create(chat_endpoint):
    platform, name = chat_endpoint
    url = f"/endpoints/admin/{name}/predict"
    assert platform.fetch(url, "POST", {"prompt": "Once upon", "max_tokens": 2}).json()["object"] == "text_completion"
    changed = platform.manage("PUT", f"/{name}", {"route": {"default": "/v1/chat/completions"}})
    assert changed.status_code == 200, changed.text
    try:
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert platform.fetch(url, "POST", chat).json()["object"] == "chat.completion"
    finally:
        platform.manage("PUT", f"/{name}", {"route": {"default": "/v1/completions"}})
