"""The few routes of Grafana's HTTP API that an installation uses, and what it was sent: `with serving(Grafana()) as url`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.ports import free_port

TOKEN = "glsa_service"


class Grafana:
    """Keeps data sources by id, folders and dashboards by uid, as Grafana 10 does. `broken`: what it answers instead."""

    def __init__(self) -> None:
        self.sources: dict[int, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.broken: Response | None = None
        routes = [
            Route("/api/datasources/name/{name}", self._source_by_name),
            Route("/api/datasources", self._add_source, methods=["POST"]),
            Route("/api/datasources/{id:int}", self._set_source, methods=["PUT"]),
            Route("/api/folders/{uid}", self._folder),
            Route("/api/folders", self._add_folder, methods=["POST"]),
            Route("/api/dashboards/uid/{uid}", self._dashboard),
            Route("/api/dashboards/db", self._save, methods=["POST"]),
        ]
        self._app = Starlette(routes=routes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            refusal = self.broken
            if refusal is None and Request(scope).headers.get("authorization") != f"Bearer {TOKEN}":
                refusal = JSONResponse({"message": "Invalid API key"}, 401)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _source_by_name(self, request: Request) -> Response:
        found = next((row for row in self.sources.values() if row["name"] == request.path_params["name"]), None)
        return JSONResponse(found) if found else JSONResponse({"message": "Data source not found"}, 404)

    async def _add_source(self, request: Request) -> Response:
        body = await request.json()
        if any(row["name"] == body["name"] for row in self.sources.values()):
            return JSONResponse({"message": "data source with the same name already exists"}, 409)
        self.writes.append("data source")
        row = self.sources[len(self.sources) + 1] = {**body, "id": len(self.sources) + 1, "orgId": 1, "version": 1}
        return JSONResponse({"datasource": row, "id": row["id"], "message": "Datasource added", "name": row["name"]})

    async def _set_source(self, request: Request) -> Response:
        number = request.path_params["id"]
        if number not in self.sources:
            return JSONResponse({"message": "Data source not found"}, 404)
        self.writes.append("data source")
        self.sources[number] = await request.json()
        return JSONResponse({"datasource": self.sources[number], "message": "Datasource updated"})

    async def _folder(self, request: Request) -> Response:
        found = self.folders.get(request.path_params["uid"])
        return JSONResponse(found) if found else JSONResponse({"message": "folder not found", "status": "not-found"}, 404)

    async def _add_folder(self, request: Request) -> Response:
        body = await request.json()
        if body["uid"] in self.folders:
            return JSONResponse({"message": "a folder with the same uid already exists"}, 409)
        self.writes.append("folder")
        self.folders[body["uid"]] = body
        return JSONResponse(body)

    async def _dashboard(self, request: Request) -> Response:
        found = self.dashboards.get(request.path_params["uid"])
        return JSONResponse(found) if found else JSONResponse({"message": "Dashboard not found"}, 404)

    async def _save(self, request: Request) -> Response:
        body = await request.json()
        known = self.dashboards.get(body["dashboard"]["uid"])
        if body["folderUid"] not in self.folders:
            return JSONResponse({"message": "folder not found"}, 400)
        if known is not None and not body.get("overwrite"):
            return JSONResponse({"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}, 412)
        self.writes.append("dashboard")
        self.dashboards[body["dashboard"]["uid"]] = body
        return JSONResponse({"uid": body["dashboard"]["uid"], "status": "success"})


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL of an ASGI application on a port of its own, served by a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
