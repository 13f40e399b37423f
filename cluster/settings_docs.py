"""What the typed engine settings mean, in the engine's own words: from the table of its flags, for the API and the documents.

`python -m cluster.settings_docs` writes the table of docs/models.md anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cluster import engine_settings, images, vllm_words
from cluster.page_tables import PageTable

GROUPS: Mapping[str, type[BaseModel]] = {
    "model.settings.llm": engine_settings.LlmSettings,
    "model.settings.tokenizer": engine_settings.TokenizerSettings,
    "model.settings.system": engine_settings.SystemSettings,
    "model.image.vLLM": images.VllmImage,
}
OWN: Mapping[str, str] = {
    "allow_pickle": "Load weights that are Python pickles (.bin, .pt): they can run code. Moorage's own.",
    "chat_template": "The text of a Jinja template that turns messages into a prompt. Moorage's own.",
    "compile_cache": "Keep what vLLM compiles on the node for the next start of the same model (the default). Moorage's own.",
    "sleep_timeout": "Minutes without a request after which the engine sleeps and frees its cache; GPUs only. Moorage's own.",
    "health_route": "Kept, no effect: health is the platform's.",
    "url": "Kept, no effect: the platform starts its own vLLM.",
    "port": "Kept, no effect: the platform chooses ports.",
}
"""Fields that are no flags of vLLM."""
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
LONGEST = 300


def rows() -> list[dict[str, Any]]:
    """Every field: its group, name, flag (null: Moorage's own), kind, choices, default, help, and whether this vLLM has it."""
    return [_row(group, name, model) for group, model in GROUPS.items() for name in model.model_fields]


def describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the texts, choices and defaults into the JSON schema of one group, in place."""
    known = {row["name"]: row for row in rows() if GROUPS[row["group"]] is model}
    for name, property_ in schema.get("properties", {}).items():
        row = known[name]
        property_["description"] = row["help"] + (f" Flag: {row['flag']}." if row["flag"] else "")
        if row["choices"]:
            property_["examples"] = row["choices"]


def markdown() -> str:
    """The table of docs/models.md."""
    lines = ["| Field | vLLM's flag | Means |", "|---|---|---|"]
    for row in rows():
        flag = f"`{row['flag']}`" if row["flag"] and row["supported"] else ("not in this vLLM" if row["flag"] else "")
        default = f" Default: `{row['default']}`." if row["default"] not in (None, "") else ""
        lines.append(f"| `{row['group']}.{row['name']}` | {flag} | {_cell(row['help'])}{default} |")
    return "\n".join(lines)


def _row(group: str, name: str, model: type[BaseModel]) -> dict[str, Any]:
    flag = None if name in OWN else "--" + name.replace("_", "-")
    found: Mapping[str, Any] = vllm_words.flags().get(flag or "", {})
    help_text = OWN.get(name) or found.get("help") or "This version of vLLM does not have it."
    return {
        "group": group,
        "name": model.model_fields[name].alias or name,
        "flag": flag,
        "kind": found.get("kind"),
        "choices": [choice for choice in found.get("choices", ()) if choice is not None],
        "default": found.get("default"),
        "help": help_text,
        "supported": flag is None or bool(found),
    }


def _cell(text: str) -> str:
    """Plain words that Markdown leaves alone, up to the end of a sentence."""
    plain = re.sub(r"[`*_<>\[\]|]", lambda match: f"\\{match[0]}", text.replace("`", "'"))
    if len(plain) <= LONGEST:
        return plain
    cut = plain[:LONGEST]
    return cut[: cut.rindex(". ") + 1] if ". " in cut else cut.rpartition(" ")[0].rstrip(",;:") + " ..."


TABLE = PageTable("models.md", BEGIN, END, markdown)

if __name__ == "__main__":
    TABLE.write()
