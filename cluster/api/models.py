"""Routes of the model registry."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, control, model_control
from cluster.actor import Actor
from cluster.api import bodies, description, idempotency, schemas, wire

Body = Annotated[dict[str, Any], Depends(bodies.json_object)]


def router(commands: control.Control, models: model_control.ModelControl, who: DependsParam) -> APIRouter:
    """`who` is the dependency that names the actor."""
    api = APIRouter(prefix="/v2/models/{namespace}", tags=["models"])
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    def added(request: Request, actor: Actor, namespace: str, name: str, new: model_control.NewVersion, body: dict[str, Any]) -> Response:
        models.look(actor, namespace, new)
        scope = f"{actor.key_id}:model:{namespace}/{name}"
        return remembered.answer(request, scope, body, lambda: wire.model_version(models.register(actor, namespace, name, new)))

    @api.get("", summary="List the models of a namespace", response_model=schemas.Page[schemas.Model])
    def list_models(
        namespace: str,
        actor: Annotated[Actor, who],
        task: str | None = None,
        architecture: str | None = None,
        owner: str | None = None,
        search: Annotated[str | None, Query(description="Part of the name, description or repository.")] = None,
        limit: Annotated[int | None, Query(ge=1, le=100_000)] = None,
        cursor: str | None = None,
    ) -> Response:
        wanted = model_control.Wanted(task, architecture, owner, search)
        found = [item for item in models.listed(actor, namespace, wanted) if cursor is None or item.model.name > cursor]
        shown = found[:limit]
        items = [wire.model(item) for item in shown]
        return JSONResponse(wire.page(items, shown[-1].model.name if len(shown) < len(found) else None))

    @api.post(
        "",
        summary="Register a model, or another version of one",
        response_model=schemas.ModelVersion,
        openapi_extra=description.body("NewModel", repeatable=True),
    )
    def register(request: Request, namespace: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        new = complaints.read(model_control.NewModel, body)
        return added(request, actor, namespace, new.name, new, body)

    @api.get("/{name}", summary="Show a model", response_model=schemas.Model)
    def get(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.model(models.get(actor, namespace, name), models.users(namespace, name)))

    @api.patch(
        "/{name}",
        summary="Change a model's description or owner",
        response_model=schemas.Model,
        openapi_extra=description.body("EditedModel"),
    )
    def edit(namespace: str, name: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        return JSONResponse(wire.model(models.edit(actor, namespace, name, complaints.read(model_control.EditedModel, body))))

    @api.delete("/{name}", summary="Forget a model that no endpoint uses; its files stay", response_model=schemas.Nothing)
    def delete(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        models.delete(actor, namespace, name)
        return JSONResponse({})

    @api.get("/{name}/versions", summary="The versions of a model, oldest first", response_model=schemas.Page[schemas.ModelVersion])
    def versions(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.page([wire.model_version(row) for row in models.get(actor, namespace, name).versions]))

    @api.post(
        "/{name}/versions",
        summary="Add a version to a model",
        response_model=schemas.ModelVersion,
        openapi_extra=description.body("NewVersion", repeatable=True),
    )
    def add_version(request: Request, namespace: str, name: str, actor: Annotated[Actor, who], body: Body) -> Response:
        models.get(actor, namespace, name)
        return added(request, actor, namespace, name, complaints.read(model_control.NewVersion, body), body)

    @api.get("/{name}/versions/{number}", summary="One version", response_model=schemas.ModelVersion)
    def version(namespace: str, name: str, number: int, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.model_version(models.version(actor, namespace, name, number)))

    @api.delete(
        "/{name}/versions/{number}", summary="Forget a version that no endpoint uses; its files stay", response_model=schemas.Nothing
    )
    def delete_version(namespace: str, name: str, number: int, actor: Annotated[Actor, who]) -> Response:
        models.delete(actor, namespace, name, number)
        return JSONResponse({})

    return api
