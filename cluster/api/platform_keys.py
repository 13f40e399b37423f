"""Routes of platform keys."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, platform_keys, records
from cluster.actor import Actor
from cluster.api import description, schemas, tenancy_schemas, wire
from cluster.api.endpoints import Body, OptionalBody
from cluster.api.idempotency import Idempotency


def router(keyring: platform_keys.PlatformKeys, remembered: Idempotency, who: DependsParam) -> APIRouter:
    """`who` is the dependency that names the actor."""
    api = APIRouter(prefix="/v2/keys", tags=["platform keys"])

    @api.get("", summary="Platform keys: one's own, an admin's tenant's", response_model=schemas.Page[tenancy_schemas.PlatformKey])
    def keys(actor: Annotated[Actor, who], user: str | None = None) -> Response:
        return JSONResponse(wire.page([shown(row) for row in keyring.list(actor, user)]))

    @api.post(
        "",
        summary="Add a platform key; its text is shown this once",
        response_model=tenancy_schemas.NewPlatformKey,
        openapi_extra=description.body("PlatformKeyFields", required=False, repeatable=True),
    )
    def add(request: Request, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        new = complaints.read(platform_keys.NewPlatformKey, body)

        def perform() -> dict[str, Any]:
            row, text = keyring.add(actor, new)
            return {**shown(row), "key": text}

        return remembered.answer(request, f"{actor.key_id}:key", body, perform)

    @api.get("/{key}", summary="Show a platform key, by id or by the key itself", response_model=tenancy_schemas.PlatformKey)
    def get(key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(shown(keyring.get(actor, key)))

    @api.patch(
        "/{key}",
        summary="Change a platform key's description, limits or end",
        response_model=tenancy_schemas.PlatformKey,
        openapi_extra=description.body("EditedPlatformKey"),
    )
    def edit(key: str, actor: Annotated[Actor, who], body: Body) -> Response:
        edited = complaints.read(platform_keys.EditedPlatformKey, body)
        return JSONResponse(shown(keyring.edit(actor, keyring.get(actor, key), edited)))

    @api.delete("/{key}", summary="Revoke a platform key for good", response_model=tenancy_schemas.PlatformKey)
    def revoke(key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(shown(keyring.revoke(actor, keyring.get(actor, key))))

    @api.post(
        "/{key}/rotate",
        summary="Replace a platform key; both live for overlapSeconds",
        response_model=tenancy_schemas.NewPlatformKey,
        openapi_extra=description.body("PlatformKeyRotation", required=False, repeatable=True),
    )
    def rotate(request: Request, key: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        rotation = complaints.read(platform_keys.PlatformKeyRotation, body)
        row = keyring.get(actor, key)

        def perform() -> dict[str, Any]:
            made, text = keyring.rotate(actor, row, rotation)
            return {**shown(made), "key": text}

        return remembered.answer(request, f"{actor.key_id}:rotate:{row.id}", body, perform)

    return api


def shown(row: records.Key) -> dict[str, Any]:
    """A platform key without its secret."""
    ended = row.status == "active" and row.expires_at is not None and row.expires_at <= time.time()
    return {
        "id": row.id,
        "user": row.owner,
        "owner": row.owner,
        "role": row.role,
        "namespace": row.namespace,
        "description": row.description,
        "status": "expired" if ended else row.status,
        "requestsPerMinute": row.requests_per_minute,
        "tokensPerMinute": row.tokens_per_minute,
        "tokensPerDay": row.tokens_per_day,
        "concurrency": row.concurrency,
        "budget": row.budget,
        "budgetPeriod": row.budget_period,
        "createdAt": wire.time(row.created_at),
        "updatedAt": wire.time(row.updated_at),
        "lastUsedAt": wire.time(row.last_used_at),
        "expiresAt": wire.time(row.expires_at),
        "replacedBy": row.replaced_by or None,
    }
