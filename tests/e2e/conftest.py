"""Real vLLM on the CPU, with models of random weights made on the spot; one platform for each module that needs one."""

import pytest
from support.platforms import running_platform, until


@pytest.fixture(scope="module")
def vllm_platform(models):
    """A platform that may load the tiny models from where they were made."""
    allowed = models("llama").parent.parent
    with running_platform(model_paths=allowed) as platform:
        yield platform


def create(platform, name, model, **fields):
    settings = {"llm": {"maxModelLen": 512, "maxNumSeqs": 8}}
    body = {"repository": str(model), "image": {"vLLM": {}}, "settings": settings, **fields}
    platform.create(name, model=body, wait=False)
    until(lambda: platform.status(name)["state"] != "pending", 60, what=f"{name} is placed")
    platform.wait(name, timeout=240)


@pytest.fixture(scope="module")
def chat_endpoint(vllm_platform, models):
    """A running text-generation endpoint on real vLLM: (platform, name)."""
    create(vllm_platform, "tiny-chat", models("llama"), task="text-generation")
    return vllm_platform, "tiny-chat"
