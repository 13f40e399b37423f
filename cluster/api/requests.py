"""Routes of the request log: of one endpoint for those who may see it, of a tenant for its admins, of all for operators."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import control, errors, history, log_store, records
from cluster.actor import Actor
from cluster.api import moments, request_schemas, request_wire, schemas, wire
from cluster.api.routes import Routes
from cluster.request_line import Request
from cluster.request_search import Scope, Wanted
from cluster.store.base import Store

AROUND_S = 120.0
"""Lines of a replica that have a request's id are looked for so long before its beginning and after its end."""
LINES = 100
MOST_CALLS = 10
"""Of searches for one id, each of which is bounded."""
Outcome = Literal[
    "finished",
    "refused",
    "failed",
    "client_left",
    "client_timed_out",
    "cut",
    "replica_broke",
    "unreachable",
    "timed_out",
    "queue_timed_out",
    "edge_failed",
]
ID = r"^[A-Za-z0-9-]{1,64}$"
Id = Annotated[str, Path(pattern=ID, description="The header X-Request-Id of its answer.")]
Word = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]
Limit = Annotated[int, Query(ge=1, le=1000)]


def filters(
    identity: Annotated[str | None, Query(alias="id", pattern=ID)] = None,
    key: Word = None,
    status: Annotated[str | None, Query(pattern=r"^[1-5]([0-9]{2}|xx)$", description="429, or 5xx.")] = None,
    code: Word = None,
    replica: Word = None,
    outcome: Outcome | None = None,
    slower: Annotated[float, Query(alias="slowerThan", ge=0, le=1e6, description="Seconds in all.")] = 0.0,
    since: moments.Since = None,
    until: moments.Until = None,
    text: Annotated[str | None, Query(max_length=200, description="In the path.")] = None,
) -> Wanted:
    """Which requests are asked for. Raises InvalidRequest."""
    return Wanted(
        id=identity,
        key=key,
        status=status,
        code=code,
        replica=None if replica is None else replica.rpartition(":")[2],
        outcome=outcome,
        slower=slower,
        since=moments.since(since),
        until=moments.until(until),
        text=text,
    )


Filters = Annotated[Wanted, Depends(filters)]


def router(commands: control.Control, past: history.History, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("requests", "/v2")
    one = "/endpoint/{namespace}/{name}"

    @api.get(f"{one}/requests", summary="Its requests, refused ones too, newest first", response_model=request_schemas.RequestPage)
    def of_endpoint(
        namespace: str, name: str, actor: Annotated[Actor, who], wanted: Filters, limit: Limit = 50, cursor: str | None = None
    ) -> Response:
        row = commands.get(actor, namespace, name)
        wanted = dataclasses.replace(wanted, endpoint=row.path, since=max(wanted.since, row.created_at), made=row.created_at)
        return _page(past, wanted, limit, cursor)

    @api.get(
        f"{one}/requests/{{request}}",
        summary="One request, with what the edge, the replica and the engine wrote of it",
        response_model=request_schemas.WholeRequest,
    )
    def one_of_endpoint(namespace: str, name: str, request: Id, actor: Annotated[Actor, who]) -> Response:
        row = commands.get(actor, namespace, name)
        return _whole(past, Wanted(id=request, endpoint=row.path, since=row.created_at, made=row.created_at))

    @api.get(
        f"{one}/requests/{{request}}/prompt",
        summary="What its client sent and got, where the endpoint has that kept",
        response_model=request_schemas.Prompt,
    )
    def prompt(namespace: str, name: str, request: Id, actor: Annotated[Actor, who]) -> Response:
        row = commands.get(actor, namespace, name)
        found = past.prompts.find(row.namespace, row.name, request, row.parsed.request_log.ttl_days)
        if found is None or found.at < row.created_at:
            raise errors.NotFound(
                "Nothing is kept of that request's prompt: requestLog.prompts of the endpoint was off, or its time to live is over."
            )
        kept = {"id": found.id, "at": wire.time(found.at), "path": found.route, "prompt": found.prompt, "answer": found.answer}
        return JSONResponse({**kept, "truncated": found.truncated})

    @api.delete(f"{one}/prompts", summary="Delete all prompts and answers that were kept", response_model=schemas.Nothing)
    def forget(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        row = commands.get(actor, namespace, name)
        told = records.Event(row.id, time.time(), "prompts_deleted", f"All prompts that were kept were deleted by {actor.name}.")
        commands.store.add_events([told])
        past.prompts.forget(row.namespace, row.name)
        return JSONResponse({})

    @api.get(
        "/requests", summary="The requests of a tenant; an operator sees all, newest first", response_model=request_schemas.RequestPage
    )
    def of_all(
        actor: Annotated[Actor, who],
        wanted: Filters,
        endpoint: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,40}/[a-z0-9-]{1,40}$")] = None,
        management: Annotated[bool, Query(description="Those for the management API and the console too; operators only.")] = False,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        scope = _scope(commands.store, actor)
        wanted = dataclasses.replace(wanted, scope=scope, endpoint=endpoint, management=management and actor.operator)
        return _page(past, wanted, limit, cursor)

    @api.get("/requests/{request}", summary="One request of a tenant", response_model=request_schemas.WholeRequest)
    def one_of_all(request: Id, actor: Annotated[Actor, who]) -> Response:
        return _whole(past, Wanted(id=request, scope=_scope(commands.store, actor), management=actor.operator))

    return api


def _scope(store: Store, actor: Actor) -> Scope:
    if actor.operator:
        return Scope()
    mine = {row.name: row.created_at for row in store.namespaces(actor.tenant) if row.name in actor.namespaces}
    return Scope(mine, {actor.tenant: store.tenant(actor.tenant).created_at})


def _page(past: history.History, wanted: Wanted, limit: int, cursor: str | None) -> Response:
    found = past.search.search(wanted, limit, cursor)
    shown = _shown(past, found.requests)
    return JSONResponse({"items": shown, "cursor": found.cursor, "lookedTo": wire.time(found.looked_to)})


def _whole(past: history.History, wanted: Wanted) -> Response:
    cursor: str | None = None
    for _ in range(MOST_CALLS):
        found = past.search.search(wanted, 1, cursor)
        cursor = found.cursor
        if found.requests or cursor is None:
            break
    if not found.requests:
        raise errors.NotFound("There is no such request in the log, or none that this key may see.")
    request = found.requests[0]
    namespace, _, name = request.endpoint.partition("/")
    begun = request.at - request.total_s
    near = log_store.Wanted(text=request.id, since=begun - AROUND_S, until=request.at + AROUND_S)
    lines = past.logs.read(namespace, name, near, tail=LINES) if name and request.id else []
    where = {
        "edge": "logs/access.log and logs/requests/ in the platform's folder",
        "logs": f"moorage endpoints logs {request.endpoint} --level debug --text {request.id}" if lines else None,
        "prompt": f"/manage/v2/endpoint/{request.endpoint}/requests/{request.id}/prompt" if _has_prompt(past, request) else None,
    }
    logs = [wire.log_line(line) for line in lines]
    return JSONResponse({**_shown(past, [request])[0], "edge": dict(request.line), "logs": logs, "where": where})


def _has_prompt(past: history.History, request: Request) -> bool:
    namespace, _, name = request.endpoint.partition("/")
    return bool(name) and past.prompts.find(namespace, name, request.id, history.MOST_DAYS) is not None


def _shown(past: history.History, requests: Sequence[Request]) -> list[dict[str, Any]]:
    counted = past.tokens.tokens_of([request.id for request in requests])
    return [request_wire.request(one, past.replicas.find(one.server) if one.server else None, counted.get(one.id)) for one in requests]
