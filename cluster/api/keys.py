"""Routes of an endpoint's API keys."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import budgets, complaints, control, key_control, records
from cluster import rotation as rotations
from cluster.actor import Actor
from cluster.api import description, idempotency, key_schemas, schemas, wire
from cluster.api.endpoints import Body, OptionalBody
from cluster.api.paging import KEYS, Paged
from cluster.api.routes import Routes


def router(commands: control.Control, keyring: key_control.KeyControl, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("keys", "/v2/endpoint/{namespace}/{name}/keys")
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    def shown(row: records.Key) -> dict[str, Any]:
        return wire.endpoint_key(row, keyring.status(row))

    def changed(row: records.Key, endpoint: records.Endpoint) -> dict[str, Any]:
        return {**shown(row), **wire.warnings(budgets.of_endpoint(row, endpoint.parsed.compute, commands.types()))}

    def once(make: Callable[[], tuple[records.Key, str]], endpoint: records.Endpoint) -> Callable[[], dict[str, Any]]:
        def perform() -> dict[str, Any]:
            row, text = make()
            return {**changed(row, endpoint), "key": text}

        return perform

    @api.get("", summary="List its keys, revoked and expired ones too", response_model=schemas.Page[key_schemas.EndpointKey])
    def list_keys(namespace: str, name: str, actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(keyring.of_endpoint(commands.get(actor, namespace, name)), KEYS, shown)

    @api.post(
        "",
        summary="Add a key; its text is shown this once",
        response_model=key_schemas.NewEndpointKey,
        openapi_extra=description.body("KeyFields", required=False, repeatable=True),
    )
    def add(request: Request, namespace: str, name: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        endpoint = commands.get(actor, namespace, name)
        new = complaints.read(key_control.NewKey, body)
        scope = f"{actor.key_id}:key:{endpoint.id}"
        return remembered.answer(request, scope, body, once(lambda: keyring.add(actor, new, endpoint), endpoint))

    @api.get("/{key}", summary="Show a key, by id or by the key itself", response_model=key_schemas.EndpointKey)
    def get(namespace: str, name: str, key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(shown(keyring.get(key, commands.get(actor, namespace, name))))

    @api.patch(
        "/{key}",
        summary="Edit a key's description, limits or expiry",
        response_model=key_schemas.EndpointKey,
        openapi_extra=description.body("EditedKey"),
    )
    def edit(namespace: str, name: str, key: str, actor: Annotated[Actor, who], body: Body) -> Response:
        endpoint = commands.get(actor, namespace, name)
        edited = complaints.read(key_control.EditedKey, body)
        return JSONResponse(changed(keyring.edit(actor, keyring.get(key, endpoint), edited, endpoint), endpoint))

    @api.post(
        "/{key}/rotate",
        summary="Replace a key by a new one; both work for a while",
        response_model=key_schemas.NewEndpointKey,
        openapi_extra=description.body("Rotation", required=False, repeatable=True),
    )
    def rotate(request: Request, namespace: str, name: str, key: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        endpoint = commands.get(actor, namespace, name)
        old = keyring.get(key, endpoint)
        rotation = complaints.read(rotations.Rotation, body)
        scope = f"{actor.key_id}:rotate:{old.id}"
        return remembered.answer(request, scope, body, once(lambda: keyring.rotate(actor, old, rotation, endpoint), endpoint))

    @api.delete("/{key}", summary="Revoke a key for good", response_model=key_schemas.EndpointKey)
    def revoke(namespace: str, name: str, key: str, actor: Annotated[Actor, who]) -> Response:
        endpoint = commands.get(actor, namespace, name)
        return JSONResponse(shown(keyring.revoke(actor, keyring.get(key, endpoint), endpoint)))

    return api
