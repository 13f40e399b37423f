"""Routes beside the endpoints: health, hardware, namespaces, platform keys, and what huggingface_hub asks for."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, control, hardware, key_control, settings_docs
from cluster.actor import Actor
from cluster.api import description, idempotency, schemas, wire
from cluster.api.endpoints import OptionalBody
from cluster.settings import Settings


def open_router(ready: Callable[[], bool]) -> APIRouter:
    """What needs no key."""
    api = APIRouter(tags=["platform"])

    @api.get(
        "/health",
        summary="200 once the manager has looked at the cluster",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "It has not yet."}},
    )
    def health() -> Response:
        return JSONResponse({"status": "ok"} if ready() else {"status": "starting"}, 200 if ready() else 503)

    return api


def router(settings: Settings, commands: control.Control, keyring: key_control.KeyControl, who: DependsParam) -> APIRouter:
    """`who` is the dependency that names the actor."""
    api = APIRouter(tags=["platform"])
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    @api.get("/v2/provider/{namespace}", summary="Hardware: instance types and sizes with what is free", response_model=schemas.Hardware)
    def provider(namespace: str, actor: Annotated[Actor, who]) -> Response:
        actor.enter(namespace)
        return JSONResponse(hardware.wire(commands.instances()))

    @api.get("/v2/settings", summary="Typed settings of engines, in the engine's own words", response_model=schemas.Page[schemas.Setting])
    def engine_settings(actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - needs a key like every other route
        return JSONResponse(wire.page(settings_docs.rows()))

    @api.get("/v2/namespaces", summary="Namespaces that this key may use", response_model=schemas.Page[schemas.Namespace])
    def namespaces(actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.page([{"name": name} for name in sorted(actor.namespaces)]))

    @api.get("/v2/keys", summary="Platform keys of one's namespace", response_model=schemas.Page[schemas.Key])
    def keys(actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.page([wire.key(row) for row in keyring.of_namespace(actor)]))

    @api.post(
        "/v2/keys",
        summary="Add a platform key; its text is shown this once",
        response_model=schemas.NewKey,
        openapi_extra=description.body("KeyFields", required=False, repeatable=True),
    )
    def add_key(request: Request, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        new = complaints.read(key_control.NewKey, body)

        def perform() -> dict[str, object]:
            row, text = keyring.add(actor, new)
            return {**wire.key(row), "key": text}

        return remembered.answer(request, f"{actor.key_id}:key", body, perform)

    @api.delete("/v2/keys/{key}", summary="Revoke a platform key for good", response_model=schemas.Key)
    def revoke_key(key: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.key(keyring.revoke(actor, keyring.get(key, namespace=actor.namespace))))

    @api.get("/api/whoami-v2", summary="Who this key belongs to, as huggingface_hub asks", response_model=schemas.WhoAmI)
    def whoami(actor: Annotated[Actor, who]) -> Response:
        others = [{"type": "org", "name": name} for name in sorted(actor.namespaces - {actor.namespace})]
        return JSONResponse({"type": "user", "name": actor.namespace, "fullname": actor.name, "orgs": others, "url": settings.url})

    @api.get("/api/v1/catalog/list", summary="The catalogue: empty on a fresh platform", response_model=schemas.Catalog)
    def catalog(actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - needs a key like every other route
        return JSONResponse({"items": []})

    return api
