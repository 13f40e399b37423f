"""The Grafana dashboard over all endpoints: where it lies in the package, and the link that opens it for one endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

UID = "moorage-endpoints"
FILE = Path(__file__).parent / "data" / "grafana" / "moorage.json"


def link(grafana_url: str | None, endpoint_path: str) -> str | None:
    """The dashboard opened for `namespace/name`; None without a Grafana."""
    if not grafana_url:
        return None
    return f"{grafana_url.rstrip('/')}/d/{UID}/moorage?var-endpoint={quote(endpoint_path, safe='')}"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's API and its import dialogue take it."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found
