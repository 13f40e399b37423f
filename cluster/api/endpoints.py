"""Routes of the endpoint resource itself: list, create, show, change, delete. Its commands are in `cluster.api.commands`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Query, Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import budgets, control, errors, history, records
from cluster.actor import Actor
from cluster.api import bodies, description, idempotency, schemas, wire
from cluster.api.paging import Order, Paged
from cluster.api.routes import Routes
from cluster.settings import Settings

Body = Annotated[dict[str, Any], Depends(bodies.json_object)]
OptionalBody = Annotated[dict[str, Any], Depends(bodies.optional_object)]
DryRun = Annotated[bool, Query(alias="dryRun", description="Return the plan and change nothing.")]
IfMatch = Annotated[str | None, Header(alias="If-Match", description="The generation that was read; 409 when it has changed since.")]


ORDER: Order[records.Endpoint] = Order(
    lambda row: row.name,
    lambda row: f"{row.name} {row.spec.get('model', {}).get('repository', '')} {row.spec.get('description', '')}",
)
State = Literal["pending", "initializing", "running", "updating", "updateFailed", "paused", "failed", "scaledToZero"]


def router(settings: Settings, commands: control.Control, past: history.History, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("endpoints", "/v2/endpoint/{namespace}")
    remembered = idempotency.Idempotency(commands.store, commands.seal, commands.unseal)

    @api.get("", summary="List endpoints", response_model=schemas.Page[schemas.Endpoint])
    def list_endpoints(
        namespace: str,
        actor: Annotated[Actor, who],
        paging: Paged,
        state: State | None = None,
        tags: Annotated[list[str] | None, Query()] = None,
    ) -> Response:
        tagged = (row for row in paging.after(commands.list(actor, namespace), ORDER) if set(tags or ()) <= set(row.spec.get("tags", ())))
        known = ((row, commands.status(row)) for row in tagged)
        found, cursor = paging.cut((pair for pair in known if state in (None, pair[1].state)), lambda pair: pair[0].name)
        items = [wire.endpoint(row, status, settings, commands.update_available(row)) for row, status in found]
        return JSONResponse(wire.page(items, cursor))

    @api.post(
        "",
        summary="Create an endpoint",
        response_model=schemas.NewEndpoint | schemas.Plan,
        openapi_extra=description.body("EndpointSpec", repeatable=True),
    )
    def create(
        request: Request,
        namespace: str,
        actor: Annotated[Actor, who],
        body: Body,
        dry_run: DryRun = False,
    ) -> Response:
        if dry_run:
            return JSONResponse(wire.plan(commands.plan_create(actor, namespace, body)))

        def perform() -> dict[str, Any]:
            made = commands.create(actor, namespace, body)
            answer = wire.endpoint(made.endpoint, commands.status(made.endpoint), settings)
            return {
                **answer,
                "apiKey": {"id": made.key.id, "description": control.FIRST_KEY, "key": made.key.key},
                "warnings": list(made.warnings),
            }

        commands.look(actor, namespace, body)
        return remembered.answer(request, f"{actor.key_id}:create:{namespace}", body, perform)

    @api.get("/{name}", summary="Show an endpoint (by name or id)", response_model=schemas.Endpoint)
    def get(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return shown(commands, settings, commands.get(actor, namespace, name))

    @api.put(
        "/{name}",
        summary="Change an endpoint: what is given is merged",
        response_model=schemas.Endpoint | schemas.Plan,
        openapi_extra=description.body("EndpointChange"),
    )
    def update(
        namespace: str, name: str, actor: Annotated[Actor, who], body: Body, dry_run: DryRun = False, if_match: IfMatch = None
    ) -> Response:
        if dry_run:
            return JSONResponse(wire.plan(commands.plan_update(actor, namespace, name, body)))
        commands.look(actor, namespace, body, name)
        before = commands.get(actor, namespace, name)
        row = commands.update(actor, namespace, name, body, _generation(if_match))
        unpriced = budgets.of_endpoint(row.parsed.limits, row.parsed.compute, commands.types())
        return shown(commands, settings, row, (*control.switched_on(before.parsed, row.parsed), *unpriced))

    @api.delete("/{name}", summary="Delete an endpoint, its keys and its history", response_model=schemas.Nothing)
    def delete(namespace: str, name: str, actor: Annotated[Actor, who], if_match: IfMatch = None) -> Response:
        row = commands.delete(actor, namespace, name, _generation(if_match))
        past.forget(row.namespace, row.name)
        return JSONResponse({})

    return api


def shown(commands: control.Control, settings: Settings, row: records.Endpoint, warnings: Sequence[str] = ()) -> Response:
    """The endpoint as an answer, with its generation as ETag."""
    answer = wire.endpoint(row, commands.status(row), settings, commands.update_available(row))
    return JSONResponse(answer | wire.warnings(warnings), headers={"ETag": f'"{row.generation}"'})


def _generation(if_match: str | None) -> int | None:
    if if_match is None or if_match == "*":
        return None
    text = if_match.removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise errors.InvalidRequest("If-Match takes the generation that was read, a whole number.", param="If-Match")
    return int(text)
