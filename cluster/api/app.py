"""The management API's one application: everything is built here, nothing at import."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import (
    audit,
    complaints,
    control,
    credential_control,
    errors,
    history,
    http_errors,
    key_control,
    log_store,
    metrics_view,
    model_control,
    usage_report,
)
from cluster import platform_keys as platform_keyring
from cluster import tenancy as tenants
from cluster.api import (
    adapters,
    auth,
    commands,
    credentials,
    description,
    endpoints,
    idempotency,
    keys,
    metrics,
    observing,
    platform,
    platform_keys,
    refusals,
    requests,
    tenancy,
    trail,
    usage,
)
from cluster.api import audit as audit_routes
from cluster.api import models as model_routes
from cluster.settings import Settings

log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    *,
    control: control.Control,
    keyring: key_control.KeyControl,
    models: model_control.ModelControl,
    kept: credential_control.CredentialControl,
    people: tenants.Tenancy,
    platform_keyring: platform_keyring.PlatformKeys,
    logs: log_store.Logs,
    measured: metrics_view.MetricsView,
    history: history.History,
    audit_log: audit.AuditLog,
    ready: Callable[[], bool],
    in_force: Callable[[], object] = lambda: None,
) -> FastAPI:
    """The application that is served under /manage. `ready` tells whether the cluster has been looked at once.

    `in_force` is called after each change, in a thread: it returns when the gateways have it, or after a bound.
    """
    app = description.Described(
        title="Moorage",
        summary="Endpoints of models on your own Ray cluster",
        version="2",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    who = Depends(trail.Witness(auth.Authenticator(control.store), control.store))
    remembered = idempotency.Idempotency(control.store, control.seal, control.unseal)
    declared = (
        platform.open_router(ready),
        platform.router(control, who),
        tenancy.router(settings, control, people, remembered, who),
        platform_keys.router(platform_keyring, control, remembered, who),
        endpoints.router(settings, control, history, who),
        commands.router(settings, control, who),
        keys.router(control, keyring, who),
        adapters.router(control, who),
        observing.router(control, logs, who),
        metrics.router(control, measured, who),
        requests.router(control, history, who),
        model_routes.router(control, models, who),
        usage.router(settings, control, usage_report.Reports(control.store), who),
        credentials.secrets_router(kept, who),
        credentials.integrations_router(kept, who),
        credentials.vault_router(kept, who),
        audit_routes.router(audit_log, control.store, who),
    )
    for route in trail.recorded(itertools.chain(*declared), audit_log, control.store):
        route.add_to(app)
    app.add_route(
        "/docs", lambda _: HTMLResponse(description.page(app.openapi()), headers=description.PAGE_HEADERS), include_in_schema=False
    )
    app.add_exception_handler(errors.MoorageError, _foreseen)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(refusals.Refusals, log=audit_log, routes=app.routes)
    app.add_middleware(Boundary, in_force=in_force)
    return app


class Boundary:
    """Every answer carries the request's id (the edge's, or a new one), and what nobody foresaw is an answer too.

    A change is answered when it is in force.
    """

    def __init__(self, app: ASGIApp, in_force: Callable[[], object]) -> None:
        self._app = app
        self._in_force = in_force

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        identity = given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else str(uuid.uuid4())

        scope.setdefault("state", {})["request_id"] = identity
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if scope["method"] in trail.CHANGING and message["status"] < 300:
                    await asyncio.to_thread(self._in_force)
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the one place that turns a bug into an answer without internals
            log.exception("request %s failed", identity)
            if started:
                raise
            await _refused(errors.MoorageError())(scope, receive, send_with_id)


def _refused(error: errors.MoorageError) -> Response:
    return JSONResponse(http_errors.management_body(error), http_errors.status_of(error), http_errors.headers(error))


def _foreseen(_: Request, exc: Exception) -> Response:
    return _refused(exc if isinstance(exc, errors.MoorageError) else errors.MoorageError())


def _invalid(_: Request, exc: Exception) -> Response:
    found: Any = exc.errors() if isinstance(exc, RequestValidationError) else []
    return _refused(complaints.invalid([{**item, "loc": item["loc"][1:]} for item in found]))


def _http(_: Request, exc: Exception) -> Response:
    status, given = (exc.status_code, exc.headers or {}) if isinstance(exc, HTTPException) else (500, {})
    words = {404: ("not_found", "There is no such route."), 405: ("method_not_allowed", "This route does not take that method.")}
    code, text = words.get(status, ("invalid_request", "The request is not valid."))
    return JSONResponse({"error": text, "error_type": code}, status, {**given, "X-Error-Code": code, "X-Error-Message": text})
