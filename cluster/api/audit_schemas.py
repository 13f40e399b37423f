"""The shapes of the audit log's answers; made by `cluster.api.audit`."""

from __future__ import annotations

from typing import Any, Literal

from cluster.api.schemas import Answer


class AuditRow(Answer):
    """Who did what from where, or was refused it. `detail.changed`: [before, after] of each field; `detail.code`: why it was refused."""

    seq: int
    at: str
    actor: str
    tenant: str
    role: str
    key_id: str
    source: str
    request_id: str
    action: str
    resource: str
    namespace: str
    outcome: Literal["done", "refused"]
    status: int
    detail: dict[str, Any]
    hash: str


class AuditVerdict(Answer):
    """What a check of the whole log found: `rows` fit, up to `hash`; `bad` is the first row that does not, `problem` why."""

    intact: bool
    rows: int
    hash: str
    bad: int | None
    problem: str | None
    warning: str | None
