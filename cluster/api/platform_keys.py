"""Routes of platform keys."""

import time
from typing import Annotated, Any

from fastapi import Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import budgets, complaints, control, platform_keys, records
from cluster import rotation as rotations
from cluster.actor import Actor
from cluster.api import description, schemas, tenancy_schemas, wire
from cluster.api.endpoints import Body, OptionalBody
from cluster.api.idempotency import Idempotency
from cluster.api.paging import KEYS, Paged
from cluster.api.routes import Routes


def router(keyring: platform_keys.PlatformKeys, commands: control.Control, remembered: Idempotency, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("platform keys", "/v2/keys")

    def changed(row: records.Key) -> dict[str, Any]:
        return {**shown(row), **wire.warnings(budgets.of_platform_key(row, commands.types()))}

    @api.get("", summary="Platform keys: one's own, an admin's tenant's", response_model=schemas.Page[tenancy_schemas.PlatformKey])
    def keys(actor: Annotated[Actor, who], paging: Paged, user: str | None = None) -> Response:
        return paging.answer(keyring.list(actor, user), KEYS, shown)

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
            return {**changed(row), "key": text}

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
        return JSONResponse(changed(keyring.edit(actor, keyring.get(actor, key), edited)))

    @api.delete("/{key}", summary="Revoke a platform key for good", response_model=tenancy_schemas.PlatformKey)
    def revoke(key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(shown(keyring.revoke(actor, keyring.get(actor, key))))

    @api.post(
        "/{key}/rotate",
        summary="Replace a platform key; both live for overlapSeconds",
        response_model=tenancy_schemas.NewPlatformKey,
        openapi_extra=description.body("Rotation", required=False, repeatable=True),
    )
    def rotate(request: Request, key: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        rotation = complaints.read(rotations.Rotation, body)
        row = keyring.get(actor, key)

        def perform() -> dict[str, Any]:
            made, text = keyring.rotate(actor, row, rotation)
            return {**changed(made), "key": text}

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
