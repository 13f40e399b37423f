"""Routes of named secrets and integrations."""

from typing import Annotated, Any

from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response

from cluster import complaints, credential_control, errors
from cluster.actor import Actor
from cluster.api import credential_schemas, description, schemas, wire
from cluster.api.endpoints import Body
from cluster.api.paging import BY_NAME, Order, Paged
from cluster.api.routes import Routes
from cluster.credentials import INTEGRATION, SECRET

SHELF: Order[credential_control.Listed] = Order(lambda found: BY_NAME.mark(found.row), lambda found: BY_NAME.text(found.row))


def secrets_router(kept: credential_control.CredentialControl, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("secrets and integrations", "/v2/secrets/{namespace}")

    @api.get("", summary="List the secrets of a namespace, without values", response_model=schemas.Page[credential_schemas.Secret])
    def list_secrets(namespace: str, actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(kept.listed(actor, namespace, SECRET), SHELF, _shown)

    @api.post("", summary="Add a secret", response_model=credential_schemas.Secret, openapi_extra=description.body("NewSecret"))
    def add_secret(namespace: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        return JSONResponse(_shown(kept.add_secret(actor, namespace, complaints.read(credential_control.NewSecret, body))))

    @api.get("/{name}", summary="Show a secret, without its value", response_model=credential_schemas.Secret)
    def get_secret(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(_shown(kept.get(actor, namespace, SECRET, name)))

    @api.patch(
        "/{name}",
        summary="Change a secret; replicas that start from then on use it",
        response_model=credential_schemas.Secret,
        openapi_extra=description.body("EditedSecret"),
    )
    def edit_secret(namespace: str, name: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        return JSONResponse(_shown(kept.edit_secret(actor, namespace, name, complaints.read(credential_control.EditedSecret, body))))

    @api.delete("/{name}", summary="Delete a secret that no endpoint refers to", response_model=schemas.Nothing)
    def delete_secret(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        kept.delete(actor, namespace, SECRET, name)
        return JSONResponse({})

    return api


def integrations_router(kept: credential_control.CredentialControl, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("secrets and integrations", "/v2/integrations/{namespace}")

    @api.get("", summary="List the integrations of a namespace", response_model=schemas.Page[credential_schemas.Integration])
    def list_integrations(namespace: str, actor: Annotated[Actor, who], paging: Paged) -> Response:
        return paging.answer(kept.listed(actor, namespace, INTEGRATION), SHELF, _shown)

    @api.post(
        "",
        summary="Add an integration",
        response_model=credential_schemas.Integration,
        openapi_extra=description.body("NewIntegration"),
    )
    def add_integration(namespace: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        return JSONResponse(_shown(kept.add_integration(actor, namespace, complaints.read(credential_control.NewIntegration, body))))

    @api.get("/{name}", summary="Show an integration, without its values", response_model=credential_schemas.Integration)
    def get_integration(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        return JSONResponse(_shown(kept.get(actor, namespace, INTEGRATION, name)))

    @api.patch(
        "/{name}",
        summary="Change an integration; replicas that start from then on use it",
        response_model=credential_schemas.Integration,
        openapi_extra=description.body("EditedIntegration"),
    )
    def edit_integration(namespace: str, name: str, actor: Annotated[Actor, who], body: Body) -> Response:
        actor.enter(namespace)
        edited = complaints.read(credential_control.EditedIntegration, body)
        return JSONResponse(_shown(kept.edit_integration(actor, namespace, name, edited)))

    @api.delete("/{name}", summary="Delete an integration that no endpoint refers to", response_model=schemas.Nothing)
    def delete_integration(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        kept.delete(actor, namespace, INTEGRATION, name)
        return JSONResponse({})

    return api


def vault_router(kept: credential_control.CredentialControl, who: DependsParam) -> Routes:
    """What the operator does with the keys that everything is sealed under."""
    api = Routes("secrets and integrations", "/v2/vault")

    @api.post("/reseal", summary="Seal every stored value under the newest key", response_model=credential_schemas.Resealed)
    def reseal(actor: Annotated[Actor, who]) -> Response:
        if not actor.operator:
            raise errors.Forbidden("Only the operator reseals the platform's secret values.")
        return JSONResponse({"values": kept.reseal()})

    return api


def _shown(found: credential_control.Listed) -> dict[str, Any]:
    row = found.row
    of_kind = {"kind": row.kind, "fields": sorted(row.fields)} if row.shelf == INTEGRATION else {}
    return {
        "name": row.name,
        "namespace": row.namespace,
        **of_kind,
        "description": row.description,
        "owner": row.owner,
        "usedBy": list(found.used_by),
        "createdAt": wire.time(row.created_at),
        "updatedAt": wire.time(row.updated_at),
    }
