"""Routes that show what goes on with an endpoint: events and logs."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import Query
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response, StreamingResponse

from cluster import control, errors, log_store, records
from cluster.actor import Actor
from cluster.api import event_stream, moments, schemas, wire
from cluster.api.routes import Routes

Level = Literal["debug", "info", "warning", "error"]
Text = Annotated[str | None, Query(max_length=200)]
NDJSON = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}


def router(commands: control.Control, logs: log_store.Logs, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("observing", "/v2/endpoint/{namespace}/{name}")

    @api.get(
        "/events",
        summary="What happened to it, in order; `follow=true` goes on, one JSON object per line",
        response_model=schemas.Page[schemas.Event],
        responses={200: NDJSON},
    )
    def events(
        namespace: str,
        name: str,
        actor: Annotated[Actor, who],
        after: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        before: Annotated[int | None, Query(ge=0, lt=2**53, description="The cursor: events before these.")] = None,
        since: moments.Since = None,
        until: moments.Until = None,
        level: Level | None = None,
        kind: Text = None,
        replica: Text = None,
        text: Text = None,
        limit: Annotated[int, Query(ge=1, le=2000)] = 200,
        follow: bool = False,
    ) -> Response:
        row = commands.get(actor, namespace, name)
        wanted = records.EventsWanted(after, before, moments.since(since), moments.until(until), level, kind, replica, text)
        if follow:
            return StreamingResponse(event_stream.lines(_reader(commands, row), wanted, limit), media_type="application/x-ndjson")
        found = commands.store.events(row.id, wanted, limit=limit)
        cursor = str(found[0].id) if len(found) == limit else None
        return JSONResponse(wire.page([wire.event(event) for event in found], cursor))

    @api.get(
        "/logs",
        summary="What its servers print; `follow=true` goes on, one JSON object per line",
        response_model=schemas.Page[schemas.LogLine],
        responses={200: NDJSON},
    )
    def read_logs(
        namespace: str,
        name: str,
        actor: Annotated[Actor, who],
        replica: Text = None,
        level: Level | None = None,
        since: moments.Since = None,
        until: moments.Until = None,
        text: Text = None,
        tail: Annotated[int, Query(ge=1, le=10_000)] = 50,
        before: Annotated[str | None, Query(description="The cursor: lines before these.")] = None,
        follow: bool = False,
    ) -> Response:
        row = commands.get(actor, namespace, name)
        wanted = log_store.Wanted(replica, level, moments.since(since), text, moments.until(until))
        if follow:
            entries = logs.follow(row.namespace, row.name, wanted, tail=tail)
            return StreamingResponse(_lines(entries), media_type="application/x-ndjson")
        found, cursor = logs.page(row.namespace, row.name, wanted, tail=tail, before=before)
        return JSONResponse(wire.page([wire.log_line(entry) for entry in found], cursor))

    return api


async def _lines(entries: AsyncIterator[log_store.LogEntry | None]) -> AsyncIterator[str]:
    """An empty line when it is quiet lets the server notice that its client has left."""
    async for entry in entries:
        yield json.dumps(wire.log_line(entry)) + "\n" if entry else "\n"


def _reader(commands: control.Control, row: records.Endpoint) -> event_stream.Read:
    def read(wanted: records.EventsWanted, limit: int) -> list[records.Event] | None:
        try:
            known = commands.store.endpoint(row.namespace, row.name)
        except errors.NotFound:
            return None
        return commands.store.events(row.id, wanted, limit=limit) if known.id == row.id else None

    return read
