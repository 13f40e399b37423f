"""Routes of an endpoint's API keys."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, control, key_control
from cluster.actor import Actor
from cluster.api import description, idempotency, schemas, wire
from cluster.api.endpoints import Body, OptionalBody


def router(commands: control.Control, keyring: key_control.KeyControl, who: DependsParam) -> APIRouter:
    """`who` is the dependency that names the actor."""
    api = APIRouter(prefix="/v2/endpoint/{namespace}/{name}/keys", tags=["keys"])
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    @api.get("", summary="List its keys, revoked ones too", response_model=schemas.Page[schemas.Key])
    def list_keys(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.page([wire.key(row) for row in keyring.of_endpoint(commands.get(actor, namespace, name))]))

    @api.post(
        "",
        summary="Add a key; its text is shown this once",
        response_model=schemas.NewKey,
        openapi_extra=description.body("KeyFields", required=False, repeatable=True),
    )
    def add(request: Request, namespace: str, name: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        endpoint = commands.get(actor, namespace, name)
        new = complaints.read(key_control.NewKey, body)

        def perform() -> dict[str, object]:
            row, text = keyring.add(actor, new, endpoint)
            return {**wire.key(row), "key": text}

        return remembered.answer(request, f"{actor.key_id}:key:{endpoint.id}", body, perform)

    @api.get("/{key}", summary="Show a key, by id or by the key itself", response_model=schemas.Key)
    def get(namespace: str, name: str, key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.key(keyring.get(key, commands.get(actor, namespace, name))))

    @api.patch("/{key}", summary="Edit a key's description", response_model=schemas.Key, openapi_extra=description.body("EditedKey"))
    def edit(namespace: str, name: str, key: str, actor: Annotated[Actor, who], body: Body) -> Response:
        endpoint = commands.get(actor, namespace, name)
        edited = complaints.read(key_control.EditedKey, body)
        return JSONResponse(wire.key(keyring.edit(actor, keyring.get(key, endpoint), edited, endpoint)))

    @api.delete("/{key}", summary="Revoke a key for good", response_model=schemas.Key)
    def revoke(namespace: str, name: str, key: str, actor: Annotated[Actor, who]) -> Response:
        endpoint = commands.get(actor, namespace, name)
        return JSONResponse(wire.key(keyring.revoke(actor, keyring.get(key, endpoint), endpoint)))

    return api
