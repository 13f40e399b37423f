"""How the tests' models are served, behind the edge and bare."""

from support.platforms import until

TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
STRUCTURED = ("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}')
CHAT_ARGS = (*TOOLS, *STRUCTURED)
"""Flags that its user gives."""
LORA_SETTINGS = {"enableLora": True, "maxLoraRank": 16}
LORA = ("--enable-lora", "--max-lora-rank", "16")
"""Another kernel may choose another token where two are alike, so that both have it."""


def create(platform, name, **model):
    """An endpoint of real vLLM that runs."""
    settings = {"llm": {"maxModelLen": 512, "maxNumSeqs": 8, **model.pop("llm", {})}}
    platform.create(name, model={"image": {"vLLM": {}}, "settings": settings, **model}, wait=False)
    until(lambda: platform.status(name)["state"] != "pending", 60, what=f"{name} is placed")
    platform.wait(name, timeout=480)
