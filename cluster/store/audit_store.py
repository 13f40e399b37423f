"""The part of the Store port that is about the audit log. Nothing in it changes or deletes a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from cluster import records

Seal = Callable[[records.Audit], str]
"""The hash of a row whose `seq` and `previous` are final."""


@dataclasses.dataclass(frozen=True)
class AuditFilter:
    """Which rows are asked for; None = whatever. `since` is included, `until` is not (Unix seconds)."""

    tenant: str | None = None
    actor: str | None = None
    key_id: str | None = None
    action: str | None = None
    """Exactly this one, or all that begin so where it ends with a dot: `key.`"""
    resource: str | None = None
    """Exactly this one, or what lies below it: `admin` finds `admin/demo-chat`."""
    namespace: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None


class AuditStore(Protocol):
    """As `cluster.store.base.Store`, of which it is a part."""

    def append_audit(self, row: records.Audit, seal: Seal) -> records.Audit:
        """Store the row with the next `seq`, the hash of the row before it as `previous`, and its own; returned as stored.

        Rows are appended strictly one after the other, whichever process appends: who is second waits for the first's
        transaction. So this belongs at the end of one.
        """

    def audit(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[records.Audit]:
        """The newest `limit` rows that match and have seq < before, newest first."""

    def audit_after(self, seq: int, limit: int) -> list[records.Audit]:
        """The first `limit` rows with a higher seq, ascending."""
