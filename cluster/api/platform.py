"""Routes beside the endpoints: health, hardware, settings of engines, and the catalogue that huggingface_hub asks for."""

from collections.abc import Callable
from typing import Annotated

from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import control, hardware, settings_docs
from cluster.actor import Actor
from cluster.api import schemas, wire
from cluster.api.routes import Routes


def open_router(ready: Callable[[], bool]) -> Routes:
    """What needs no key."""
    api = Routes("platform")

    @api.get(
        "/health",
        summary="200 once the manager has looked at the cluster",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "It has not yet."}},
    )
    def health() -> Response:
        return JSONResponse({"status": "ok"} if ready() else {"status": "starting"}, 200 if ready() else 503)

    return api


def router(commands: control.Control, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("platform")

    @api.get("/v2/provider/{namespace}", summary="Hardware: instance types and sizes with what is free", response_model=schemas.Hardware)
    def provider(namespace: str, actor: Annotated[Actor, who]) -> Response:
        actor.enter(namespace)
        return JSONResponse(hardware.wire(commands.instances()))

    @api.get("/v2/settings", summary="Typed settings of engines, in the engine's own words", response_model=schemas.Page[schemas.Setting])
    def engine_settings(actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - needs a key like every other route
        return JSONResponse(wire.page(settings_docs.rows()))

    @api.get("/api/v1/catalog/list", summary="The catalogue: empty on a fresh platform", response_model=schemas.Catalog)
    def catalog(actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - needs a key like every other route
        return JSONResponse({"items": []})

    return api
