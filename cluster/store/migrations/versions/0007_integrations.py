"""Secret values and integrations of namespaces."""

from __future__ import annotations

revision = "0007_integrations"
down_revision = "0006_audit"


def upgrade() -> None:
    """Nothing yet."""
