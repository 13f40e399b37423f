"""Routes of the audit log: shown, exported, checked. None changes it."""

import itertools
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response, StreamingResponse

from cluster import audit, errors, records
from cluster.actor import Actor
from cluster.api import audit_schemas, moments, schemas, wire
from cluster.api.routes import Routes
from cluster.store.audit_store import AuditFilter
from cluster.store.base import Store

Cursor = Annotated[int | None, Query(ge=1, lt=2**53, description="The `cursor` of the page before.")]


def router(log: audit.AuditLog, store: Store, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("audit", "/v2/audit")

    @api.get(
        "",
        summary="Who changed what, and what was refused, newest first; `format=ndjson`: all of it, one JSON object per line",
        response_model=schemas.Page[audit_schemas.AuditRow],
        responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    def rows(
        caller: Annotated[Actor, who],
        actor: Annotated[str | None, Query(description="Name of the user.")] = None,
        key: Annotated[str | None, Query(description="Id of the key.")] = None,
        action: Annotated[str | None, Query(description="Like `endpoint.update`; `endpoint.` finds all on endpoints.")] = None,
        resource: Annotated[str | None, Query(description="Like `namespace/name`; finds what lies below it too.")] = None,
        outcome: Literal["done", "refused"] | None = None,
        since: moments.Since = None,
        until: moments.Until = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Cursor = None,
        format: Literal["json", "ndjson"] = "json",
    ) -> Response:
        mine = _tenant(store, caller)
        # What came before is of an earlier tenant of that name.
        began = max(moments.since(since), mine.created_at if mine is not None else 0.0)
        whose = mine.name if mine is not None else None
        wanted = AuditFilter(whose, actor, key, action, resource, outcome=outcome, since=began or None, until=moments.until(until))
        if format == "ndjson":
            return StreamingResponse(
                (json.dumps(shown(row)) + "\n" for row in _all(log, wanted, cursor)), media_type="application/x-ndjson"
            )
        found = log.listed(wanted, cursor, limit + 1)
        return JSONResponse(wire.page([shown(row) for row in found[:limit]], str(found[limit - 1].seq) if len(found) > limit else None))

    @api.get("/verify", summary="Check that no row was edited, removed, moved or cut off", response_model=audit_schemas.AuditVerdict)
    def verify(actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - needs an operator's key
        return JSONResponse(log.verify().wire())

    return api


def shown(row: records.Audit) -> dict[str, Any]:
    """A row as an answer."""
    return {
        "seq": row.seq,
        "at": wire.time(row.at),
        "actor": row.actor,
        "tenant": row.tenant,
        "role": row.role,
        "keyId": row.key_id,
        "source": row.source,
        "requestId": row.request_id,
        "action": row.action,
        "resource": row.resource,
        "namespace": row.namespace,
        "outcome": row.outcome,
        "status": row.status,
        "detail": _detail(row),
        "hash": row.hash,
    }


def _detail(row: records.Audit) -> dict[str, Any]:
    """Readable even when somebody has edited it."""
    try:
        found = json.loads(row.detail)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": row.detail}


def _tenant(store: Store, actor: Actor) -> records.Tenant | None:
    """Whose rows an actor sees: None = everybody's. Raises Forbidden."""
    if actor.operator:
        return None
    if not actor.tenant:
        raise errors.Forbidden("The audit log is for the administrators of a tenant, and for operators.")
    return store.tenant(actor.tenant)


def _all(log: audit.AuditLog, wanted: AuditFilter, before: int | None) -> Iterator[records.Audit]:
    """Every row that matches, newest first, a page in memory at a time."""
    for _ in itertools.count():
        rows = log.listed(wanted, before, audit.PAGE)
        yield from rows
        if len(rows) < audit.PAGE:
            return
        before = rows[-1].seq
