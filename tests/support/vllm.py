"""How the tests' chat model is served, behind the edge and bare."""

TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
STRUCTURED = ("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}')
CHAT_ARGS = (*TOOLS, *STRUCTURED)
"""Flags that its user gives."""
LORA_SETTINGS = {"enableLora": True, "maxLoraRank": 16}
LORA = ("--enable-lora", "--max-lora-rank", "16")
"""Another kernel may choose another token where two are alike, so that both have it."""
