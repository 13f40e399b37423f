"""Routes of the commands on an endpoint, and of its revisions."""

from typing import Annotated

from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import control, errors, records
from cluster.actor import Actor
from cluster.api import description, schemas, wire
from cluster.api.endpoints import OptionalBody, shown
from cluster.api.paging import Order, Paged
from cluster.api.routes import Routes
from cluster.settings import Settings

REVISIONS: Order[records.Revision] = Order(
    lambda row: f"{row.number:010}", lambda row: str((row.fields.get("model") or {}).get("repository", "")), r"\d{10}"
)


def router(settings: Settings, commands: control.Control, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("endpoints", "/v2/endpoint/{namespace}")

    @api.post("/{name}/pause", summary="Stop it until it is resumed", response_model=schemas.Endpoint)
    def pause(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return shown(commands, settings, commands.pause(actor, namespace, name))

    @api.post("/{name}/resume", summary="Start a paused, failed or sleeping endpoint", response_model=schemas.Endpoint)
    def resume(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return shown(commands, settings, commands.resume(actor, namespace, name))

    @api.post("/{name}/scale-to-zero", summary="Stop its replicas until the next request", response_model=schemas.Endpoint)
    def scale_to_zero(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return shown(commands, settings, commands.scale_to_zero(actor, namespace, name))

    @api.post("/{name}/restart", summary="Replace its replicas, new ones first", response_model=schemas.Endpoint)
    def restart(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return shown(commands, settings, commands.restart(actor, namespace, name))

    @api.post(
        "/{name}/rollback",
        summary='Go back to an earlier revision: {"revision": n}, or the last that was live',
        response_model=schemas.Endpoint,
        openapi_extra=description.body("Rollback", required=False),
    )
    def rollback(namespace: str, name: str, actor: Annotated[Actor, who], body: OptionalBody) -> Response:
        to = body.get("revision")
        if set(body) - {"revision"} or not isinstance(to, int | None) or isinstance(to, bool):
            raise errors.InvalidRequest('Name a revision by its number: {"revision": 3}.', param="revision")
        return shown(commands, settings, commands.rollback(actor, namespace, name, to))

    @api.get("/{name}/revisions", summary="Its revisions and what became of each", response_model=schemas.Page[schemas.Revision])
    def revisions(namespace: str, name: str, actor: Annotated[Actor, who], paging: Paged) -> Response:
        row = commands.get(actor, namespace, name)
        return paging.answer(commands.store.revisions(row.id), REVISIONS, lambda found: wire.revision(found, row))

    @api.get("/{name}/revisions/{number}", summary="One revision", response_model=schemas.Revision)
    def revision(namespace: str, name: str, number: int, actor: Annotated[Actor, who]) -> Response:
        row = commands.get(actor, namespace, name)
        for found in commands.store.revisions(row.id):
            if found.number == number:
                return JSONResponse(wire.revision(found, row))
        raise errors.NotFound(f"There is no revision {number} of {row.name}.")

    return api
