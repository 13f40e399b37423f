"""Routes that show what goes on with an endpoint: events and logs."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response, StreamingResponse

from cluster import control, log_store
from cluster.actor import Actor
from cluster.api import schemas, wire
from cluster.api.moments import Since
from cluster.api.moments import since as _seconds

Level = Literal["debug", "info", "warning", "error"]


def router(commands: control.Control, logs: log_store.Logs, who: DependsParam) -> APIRouter:
    """`who` is the dependency that names the actor."""
    api = APIRouter(prefix="/v2/endpoint/{namespace}/{name}", tags=["observing"])

    @api.get("/events", summary="What happened to it, in order", response_model=schemas.Page[schemas.Event])
    def events(
        namespace: str,
        name: str,
        actor: Annotated[Actor, who],
        after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        since: Since = None,
        level: Level | None = None,
        limit: Annotated[int, Query(ge=1, le=2000)] = 200,
    ) -> Response:
        row = commands.get(actor, namespace, name)
        found = commands.store.events(row.id, after=after, since=_seconds(since), level=level, limit=limit)
        return JSONResponse(wire.page([wire.event(event) for event in found]))

    @api.get(
        "/logs",
        summary="What its servers print; `follow=true` goes on, one JSON object per line",
        response_model=schemas.Page[schemas.LogLine],
        responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    def read_logs(
        namespace: str,
        name: str,
        actor: Annotated[Actor, who],
        replica: str | None = None,
        level: Level | None = None,
        since: Since = None,
        text: str | None = None,
        tail: Annotated[int, Query(ge=1, le=10_000)] = 50,
        follow: bool = False,
    ) -> Response:
        row = commands.get(actor, namespace, name)
        wanted = log_store.Wanted(replica, level, _seconds(since), text)
        if follow:
            entries = logs.follow(row.namespace, row.name, wanted, tail=tail)
            return StreamingResponse(_lines(entries), media_type="application/x-ndjson")
        return JSONResponse(wire.page([_entry(entry) for entry in logs.read(row.namespace, row.name, wanted, tail=tail)]))

    return api


async def _lines(entries: AsyncIterator[log_store.LogEntry | None]) -> AsyncIterator[str]:
    """An empty line when it is quiet lets the server notice that its client has left."""
    async for entry in entries:
        yield json.dumps(_entry(entry)) + "\n" if entry else "\n"


def _entry(entry: log_store.LogEntry) -> dict[str, object]:
    return {"at": wire.time(entry.at), "level": entry.level, "replica": entry.replica, "text": entry.text}
