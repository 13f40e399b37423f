"""Routes of the model registry."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, control, model_control, records
from cluster.actor import Actor
from cluster.api import bodies, description, idempotency, schemas, wire
from cluster.api.paging import BY_NAME, Order, Paged
from cluster.api.routes import Routes

Body = Annotated[dict[str, Any], Depends(bodies.json_object)]
MODELS: Order[model_control.Listed] = Order(
    lambda item: item.model.name, lambda item: f"{BY_NAME.text(item.model)} {item.newest.repository if item.newest else ''}"
)
VERSIONS: Order[records.ModelVersion] = Order(
    lambda row: f"{row.version:010}", lambda row: f"{row.repository} {row.description}", r"\d{10}"
)


def router(commands: control.Control, models: model_control.ModelControl, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("models", "/v2/models/{namespace}")
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    def added(request: Request, actor: Actor, namespace: str, name: str, new: model_control.NewVersion, body: dict[str, Any]) -> Response:
        models.look(actor, namespace, new)
        scope = f"{actor.key_id}:model:{namespace}/{name}"
        return remembered.answer(request, scope, body, lambda: wire.model_version(models.register(actor, namespace, name, new)))

    @api.get("", summary="List the models of a namespace", response_model=schemas.Page[schemas.Model])
    def list_models(
        namespace: str,
        actor: Annotated[Actor, who],
        paging: Paged,
        task: str | None = None,
        architecture: str | None = None,
        owner: str | None = None,
    ) -> Response:
        return paging.answer(models.listed(actor, namespace, model_control.Wanted(task, architecture, owner)), MODELS, wire.model)

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
    def versions(namespace: str, name: str, actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(models.get(actor, namespace, name).versions, VERSIONS, wire.model_version)

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
