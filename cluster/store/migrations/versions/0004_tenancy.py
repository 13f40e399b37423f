"""Tenants, their namespaces and users."""

from __future__ import annotations

revision = "0004_tenancy"
down_revision = "0003_limits"


def upgrade() -> None:
    """Nothing yet."""
