"""The audit log in memory, the twin; see `cluster.store.audit_store.AuditStore` for what each method promises."""

from __future__ import annotations

import dataclasses
import threading

from cluster import records
from cluster.store.audit_store import AuditFilter, Seal


class MemoryAudit:
    """Part of MemoryStore, whose lock it uses."""

    _lock: threading.RLock

    def __init__(self) -> None:
        self._audit: list[records.Audit] = []

    def append_audit(self, row: records.Audit, seal: Seal) -> records.Audit:
        with self._lock:
            last = self._audit[-1] if self._audit else None
            placed = dataclasses.replace(row, seq=last.seq + 1 if last else 1, previous=last.hash if last else "")
            stored = dataclasses.replace(placed, hash=seal(placed))
            self._audit.append(stored)
            return stored

    def audit(self, wanted: AuditFilter, *, before: int | None = None, limit: int = 100) -> list[records.Audit]:
        with self._lock:
            found = (row for row in reversed(self._audit) if _matches(row, wanted) and (before is None or row.seq < before))
            return [row for row, _ in zip(found, range(limit), strict=False)]

    def audit_after(self, seq: int, limit: int) -> list[records.Audit]:
        with self._lock:
            return [row for row in self._audit if row.seq > seq][:limit]


def _matches(row: records.Audit, wanted: AuditFilter) -> bool:
    equal = ("tenant", "actor", "key_id", "namespace", "outcome")
    if any(getattr(wanted, name) not in (None, getattr(row, name)) for name in equal):
        return False
    action, resource = wanted.action, wanted.resource
    return (
        (action is None or row.action == action or (action.endswith(".") and row.action.startswith(action)))
        and (resource is None or row.resource == resource or row.resource.startswith(f"{resource}/"))
        and (wanted.since is None or row.at >= wanted.since)
        and (wanted.until is None or row.at < wanted.until)
    )
