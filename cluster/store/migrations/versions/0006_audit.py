"""The audit log."""

from __future__ import annotations

revision = "0006_audit"
down_revision = "0005_usage"


def upgrade() -> None:
    """Nothing yet."""
