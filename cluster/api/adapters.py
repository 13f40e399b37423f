"""Routes of an endpoint's LoRA adapters."""

from typing import Annotated

from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import adapter_control, complaints, control
from cluster import spec as specs
from cluster.actor import Actor
from cluster.api import description, schemas, wire
from cluster.api.endpoints import Body
from cluster.api.routes import Routes


def router(commands: control.Control, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("adapters", "/v2/endpoint/{namespace}/{name}/adapters")
    of = adapter_control.AdapterControl(commands)

    @api.get("", summary="List its adapters and what became of each", response_model=schemas.Page[schemas.Adapter])
    def list_adapters(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.page([wire.adapter(found) for found in of.list(actor, namespace, name)]))

    @api.post(
        "",
        summary="Add an adapter while it serves; the same again changes nothing",
        response_model=schemas.NewAdapter,
        openapi_extra=description.body("AdapterFields"),
    )
    def add(namespace: str, name: str, actor: Annotated[Actor, who], body: Body) -> Response:
        endpoint = commands.get(actor, namespace, name)
        made = of.add(actor, namespace, endpoint.name, complaints.read(specs.Adapter, body))
        return JSONResponse({**wire.adapter(made.status), "warnings": list(made.warnings)})

    @api.get("/{adapter}", summary="Show an adapter", response_model=schemas.Adapter)
    def get(namespace: str, name: str, adapter: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(wire.adapter(of.get(actor, namespace, name, adapter)))

    @api.delete("/{adapter}", summary="Remove an adapter; answers that it has begun go on", response_model=schemas.Nothing)
    def remove(namespace: str, name: str, adapter: str, actor: Annotated[Actor, who]) -> Response:
        of.remove(actor, namespace, name, adapter)
        return JSONResponse({})

    return api
