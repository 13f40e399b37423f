"""Writes cluster/data/vllm_models.json from the model registry of the installed vLLM: `python -m deployments.vllm_models [FILE]`.

To be run when the range of vLLM versions changes; a test says when the table is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deployments import vllm_api

TABLE = Path(__file__).resolve().parent.parent / "cluster" / "data" / "vllm_models.json"


def dump() -> dict[str, Any]:
    """The table: `{"vllm": version, "architectures": {name: [what for]}, "removed": {name: last version that had it}}`."""
    known, removed = vllm_api.architectures()
    return {
        "vllm": vllm_api.version(),
        "architectures": {name: sorted(kinds) for name, kinds in sorted(known.items())},
        "removed": dict(sorted(removed.items())),
    }


def main() -> None:
    """Writes the table to the file given, else to its place in the package."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(dump(), indent=1) + "\n")


if __name__ == "__main__":
    main()
