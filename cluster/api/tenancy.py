"""Routes of tenants, namespaces and users, of what is shared with one's tenant, and of who one is."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Request
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, control, records, tenancy
from cluster.actor import Actor
from cluster.api import description, schemas, tenancy_schemas, wire
from cluster.api.endpoints import Body
from cluster.api.idempotency import Idempotency
from cluster.api.paging import BY_NAME, Order, Paged
from cluster.api.routes import Routes
from cluster.settings import Settings

SHARED: Order[records.Endpoint] = Order(
    lambda row: row.path, lambda row: f"{row.path} {row.spec.get('description', '')}", r"[a-z0-9-]+/[a-z0-9-]+"
)


def router(settings: Settings, commands: control.Control, people: tenancy.Tenancy, remembered: Idempotency, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("tenancy")
    _add_tenants(api, people, remembered, who)
    _add_namespaces(api, people, remembered, who)
    _add_users(api, people, remembered, who)

    @api.get("/v2/shared", summary="Endpoints of others that one may call", response_model=schemas.Page[tenancy_schemas.Shared])
    def shared(actor: Annotated[Actor, who], paging: Paged) -> Response:
        rows = sorted(people.shared(actor), key=SHARED.mark)
        return paging.answer(rows, SHARED, lambda row: _shared(row, commands, settings))

    @api.get("/api/whoami-v2", summary="Who this key belongs to, as huggingface_hub asks", response_model=tenancy_schemas.WhoAmI)
    def whoami(actor: Annotated[Actor, who]) -> Response:
        others = [{"type": "org", "name": name} for name in sorted(actor.namespaces - {actor.namespace})]
        place = {"name": actor.namespace, "orgs": others, "tenant": actor.tenant}
        return JSONResponse({"type": "user", "fullname": actor.name, "url": settings.url, "role": actor.role, **place})

    return api


def _add_tenants(api: Routes, people: tenancy.Tenancy, remembered: Idempotency, who: DependsParam) -> None:
    @api.get("/v2/tenants", summary="Tenants; an admin sees its own", response_model=schemas.Page[tenancy_schemas.Tenant])
    def tenants(actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(people.tenants(actor), BY_NAME, _tenant)

    @api.post(
        "/v2/tenants",
        summary="Add a tenant",
        response_model=tenancy_schemas.Tenant,
        openapi_extra=description.body("NewTenant", repeatable=True),
    )
    def add_tenant(request: Request, actor: Annotated[Actor, who], body: Body) -> Response:
        new = complaints.read(tenancy.NewTenant, body)
        return _made(remembered, request, actor, "tenant", body, lambda: _tenant(people.add_tenant(new)))

    @api.get("/v2/tenants/{tenant}", summary="Show a tenant", response_model=tenancy_schemas.Tenant)
    def tenant(tenant: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(_tenant(people.tenant(actor, tenant)))

    @api.patch(
        "/v2/tenants/{tenant}",
        summary="Describe a tenant anew",
        response_model=tenancy_schemas.Tenant,
        openapi_extra=description.body("Described"),
    )
    def edit_tenant(tenant: str, actor: Annotated[Actor, who], body: Body) -> Response:  # noqa: ARG001 - its rule says who
        return JSONResponse(_tenant(people.edit_tenant(tenant, complaints.read(tenancy.Described, body))))

    @api.delete("/v2/tenants/{tenant}", summary="Delete an empty tenant", response_model=schemas.Nothing)
    def delete_tenant(tenant: str, actor: Annotated[Actor, who]) -> Response:  # noqa: ARG001 - its rule says who
        people.delete_tenant(tenant)
        return JSONResponse({})


def _add_namespaces(api: Routes, people: tenancy.Tenancy, remembered: Idempotency, who: DependsParam) -> None:
    @api.get("/v2/namespaces", summary="Namespaces that this key may use", response_model=schemas.Page[tenancy_schemas.Namespace])
    def namespaces(actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(people.namespaces(actor), BY_NAME, _namespace)

    @api.post(
        "/v2/namespaces",
        summary="Add a namespace to a tenant",
        response_model=tenancy_schemas.Namespace,
        openapi_extra=description.body("NewNamespace", repeatable=True),
    )
    def add_namespace(request: Request, actor: Annotated[Actor, who], body: Body) -> Response:
        new = complaints.read(tenancy.NewNamespace, body)
        return _made(remembered, request, actor, "namespace", body, lambda: _namespace(people.add_namespace(actor, new)))

    @api.get("/v2/namespaces/{namespace}", summary="Show a namespace", response_model=tenancy_schemas.Namespace)
    def namespace(namespace: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(_namespace(people.namespace(actor, namespace)))

    @api.patch(
        "/v2/namespaces/{namespace}",
        summary="Describe a namespace anew",
        response_model=tenancy_schemas.Namespace,
        openapi_extra=description.body("Described"),
    )
    def edit_namespace(namespace: str, actor: Annotated[Actor, who], body: Body) -> Response:
        return JSONResponse(_namespace(people.edit_namespace(actor, namespace, complaints.read(tenancy.Described, body))))

    @api.delete("/v2/namespaces/{namespace}", summary="Delete an empty namespace", response_model=schemas.Nothing)
    def delete_namespace(namespace: str, actor: Annotated[Actor, who]) -> Response:
        people.delete_namespace(actor, namespace)
        return JSONResponse({})


def _add_users(api: Routes, people: tenancy.Tenancy, remembered: Idempotency, who: DependsParam) -> None:
    @api.get("/v2/users", summary="Users; an admin sees those of its tenant", response_model=schemas.Page[tenancy_schemas.User])
    def users(actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(people.users(actor), BY_NAME, _user)

    @api.post(
        "/v2/users",
        summary="Add a person or a service account",
        response_model=tenancy_schemas.User,
        openapi_extra=description.body("NewUser", repeatable=True),
    )
    def add_user(request: Request, actor: Annotated[Actor, who], body: Body) -> Response:
        new = complaints.read(tenancy.NewUser, body)
        return _made(remembered, request, actor, "user", body, lambda: _user(people.add_user(actor, new)))

    @api.get("/v2/users/{user}", summary="Show a user", response_model=tenancy_schemas.User)
    def user(user: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(_user(people.user(actor, user)))

    @api.patch(
        "/v2/users/{user}",
        summary="Change a user's role, namespaces, description, or whether it is active",
        response_model=tenancy_schemas.User,
        openapi_extra=description.body("EditedUser"),
    )
    def edit_user(user: str, actor: Annotated[Actor, who], body: Body) -> Response:
        return JSONResponse(_user(people.edit_user(actor, user, complaints.read(tenancy.EditedUser, body))))

    @api.delete("/v2/users/{user}", summary="Delete a user and revoke its keys", response_model=schemas.Nothing)
    def delete_user(user: str, actor: Annotated[Actor, who]) -> Response:
        people.delete_user(actor, user)
        return JSONResponse({})


def _made(
    remembered: Idempotency, request: Request, actor: Actor, kind: str, body: dict[str, Any], perform: Callable[[], dict[str, Any]]
) -> Response:
    return remembered.answer(request, f"{actor.key_id}:{kind}", body, perform)


def _tenant(row: records.Tenant) -> dict[str, Any]:
    return {"name": row.name, "description": row.description, "createdAt": wire.time(row.created_at)}


def _namespace(row: records.Namespace) -> dict[str, Any]:
    return {"name": row.name, "tenant": row.tenant, "description": row.description, "createdAt": wire.time(row.created_at)}


def _user(row: records.User) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "tenant": row.tenant,
        "namespace": row.namespace,
        "role": row.role,
        "namespaces": list(row.namespaces),
        "active": row.active,
        "description": row.description,
        "createdAt": wire.time(row.created_at),
        "updatedAt": wire.time(row.updated_at),
    }


def _shared(row: records.Endpoint, commands: control.Control, settings: Settings) -> dict[str, Any]:
    """What one needs to call it, and nothing else of another tenant's endpoint."""
    whole = wire.endpoint(row, commands.status(row), settings)
    return {
        "name": row.name,
        "namespace": row.namespace,
        "url": whole["status"]["url"],
        "task": whole["model"]["task"],
        "description": whole["description"],
        "state": whole["status"]["state"],
    }
