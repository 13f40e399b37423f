"""What was used, by whom, and what hardware it took."""

from __future__ import annotations

revision = "0005_usage"
down_revision = "0004_tenancy"


def upgrade() -> None:
    """Nothing yet."""
