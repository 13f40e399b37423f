"""The echo engine's adapters: loaded and unloaded as vLLM does it, with failures that the adapter's own configuration scripts.

`adapter_config.json` may say `"echo": {"load_seconds": s, "failure": "what goes wrong"}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments import adapter_names
from deployments.echo_protocol import Refused


class Loaded:
    """The adapters that this server has loaded."""

    def __init__(self, names: adapter_names.Names = adapter_names.CURRENT) -> None:
        self._names = names
        self._loaded: set[str] = set()

    def of(self, request: Mapping[str, Any]) -> str | None:
        """The adapter that the request's `model` means. Raises Refused, adapter_names.Refused."""
        model = request.get("model")
        if not isinstance(model, str):
            return None
        adapter = self._names.adapter_of(model)
        if adapter is not None and adapter not in self._loaded:
            raise Refused(404, f"the adapter {adapter} is not loaded", "model")
        return adapter

    async def load(self, request: Mapping[str, Any]) -> None:
        """Like vLLM's /v1/load_lora_adapter. Raises Refused."""
        name, folder = str(request.get("lora_name")), Path(str(request.get("lora_path")))
        if name in self._loaded:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        try:
            script = json.loads((folder / "adapter_config.json").read_text()).get("echo", {})
        except (OSError, ValueError) as exc:
            raise Refused(404, f"The lora adapter '{name}' cannot be found at {folder}.") from exc
        await asyncio.sleep(script.get("load_seconds", 0))
        if "failure" in script:
            raise Refused(500, str(script["failure"]))
        self._loaded.add(name)

    def unload(self, request: Mapping[str, Any]) -> None:
        """Like vLLM's /v1/unload_lora_adapter: answers under way go on. Raises Refused."""
        name = str(request.get("lora_name"))
        if name not in self._loaded:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.")
        self._loaded.discard(name)
