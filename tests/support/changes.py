"""How each changing route of the management API makes a change: what has to be there before, and what is sent."""

import dataclasses

from support import people
from support.api import ECHO

from cluster import keys, records, roles

COMMIT = "c" * 40


@dataclasses.dataclass(frozen=True)
class Change:
    """A route's action in the audit log, its body, and what has to be there: given the API, returns values for the path."""

    action: str
    body: object = None
    before: object = lambda api: {}


def endpoint(api, **fields):
    """A fresh endpoint."""
    name = f"made-{len(api.store.endpoints())}-{len(api.store.audit_after(0, 10_000))}"
    api.create(name, **fields)
    return {"name": name}


def paused(api):
    place = endpoint(api)
    api.call("POST", f"/{place['name']}/pause")
    return place


def revised(api):
    """An endpoint with two revisions, the first of which was live."""
    place = endpoint(api)
    row = api.store.endpoint("admin", place["name"])
    api.store.mark_revision(row.id, 1, live_at=1.0)
    api.call("PUT", f"/{place['name']}", {"model": {"image": {"echo": {"tokensPerSecond": 5}}}})
    return place


def with_key(api):
    place = endpoint(api)
    return {**place, "key": api.call("POST", f"/{place['name']}/keys", {"description": "x"}).json()["id"]}


def with_adapter(api):
    place = endpoint(api)
    api.call("POST", f"/{place['name']}/adapters", {"name": "style", "repository": "org/style"})
    return {**place, "adapter": "style"}


def model(api):
    name = f"model-{len(api.store.models('admin'))}"
    made = api.call("POST", "/manage/v2/models/admin", {"name": name, "repository": "org/model", "revision": COMMIT})
    assert made.status_code == 200, made.text
    return {"name": name, "number": "1"}


def tenant(api):
    """With nothing in it."""
    name = f"tenant-{len(api.store.tenants())}"
    api.store.add_tenant(records.Tenant(name))
    return {"tenant": name}


def namespace(api):
    """With nothing in it."""
    name = f"space-{len(api.store.namespaces())}"
    api.store.create_namespace(records.Namespace(name, "admin"))
    return {"namespace": name}


def user(api):
    name = f"user-{len(api.store.users())}"
    people.user(api.store, name, tenant="admin", role=roles.MEMBER)
    return {"user": name}


def platform_key(api):
    return {"key": keys.key_id(people.key(api.store, user(api)["user"]))}


def secret(api):
    made = api.call("POST", "/manage/v2/secrets/admin", {"name": f"hush-{len(api.store.audit_after(0, 10_000))}", "value": "hushed"})
    return {"name": made.json()["name"]}


def integration(api):
    name = f"hub-{len(api.store.audit_after(0, 10_000))}"
    made = api.call("POST", "/manage/v2/integrations/admin", {"name": name, "kind": "huggingface", "values": {"token": "hf_hushed"}})
    return {"name": made.json()["name"]}


def sealed_otherwise(api):
    """A secret that was sealed before there was a new key."""
    secret(api)
    return {}


_ENDPOINT = "/v2/endpoint/{namespace}/{name}"
_MODEL = "/v2/models/{namespace}/{name}"
CHANGES = {
    "POST /v2/endpoint/{namespace}": Change("endpoint.create", {**ECHO, "name": "created"}),
    f"PUT {_ENDPOINT}": Change("endpoint.update", {"description": "other"}, endpoint),
    f"DELETE {_ENDPOINT}": Change("endpoint.delete", None, endpoint),
    f"POST {_ENDPOINT}/pause": Change("endpoint.pause", None, endpoint),
    f"POST {_ENDPOINT}/resume": Change("endpoint.resume", None, paused),
    f"POST {_ENDPOINT}/scale-to-zero": Change("endpoint.scale-to-zero", None, endpoint),
    f"POST {_ENDPOINT}/restart": Change("endpoint.restart", None, endpoint),
    f"POST {_ENDPOINT}/rollback": Change("endpoint.rollback", {"revision": 1}, revised),
    f"POST {_ENDPOINT}/keys": Change("key.create", {"description": "mine"}, endpoint),
    f"PATCH {_ENDPOINT}/keys/{{key}}": Change("key.update", {"description": "other"}, with_key),
    f"DELETE {_ENDPOINT}/keys/{{key}}": Change("key.revoke", None, with_key),
    f"POST {_ENDPOINT}/adapters": Change("adapter.create", {"name": "style", "repository": "org/style"}, endpoint),
    f"DELETE {_ENDPOINT}/adapters/{{adapter}}": Change("adapter.delete", None, with_adapter),
    "POST /v2/models/{namespace}": Change("model.create", {"name": "new-model", "repository": "org/model", "revision": COMMIT}),
    f"PATCH {_MODEL}": Change("model.update", {"description": "other"}, model),
    f"DELETE {_MODEL}": Change("model.delete", None, model),
    f"POST {_MODEL}/versions": Change("model-version.create", {"repository": "org/model", "revision": "d" * 40}, model),
    f"DELETE {_MODEL}/versions/{{number}}": Change("model-version.delete", None, model),
    "POST /v2/keys": Change("platform-key.create", {"description": "mine"}),
    "PATCH /v2/keys/{key}": Change("platform-key.update", {"description": "other"}, platform_key),
    "POST /v2/keys/{key}/rotate": Change("platform-key.rotate", {}, platform_key),
    "DELETE /v2/keys/{key}": Change("platform-key.revoke", None, platform_key),
    f"POST {_ENDPOINT}/keys/{{key}}/rotate": Change("key.rotate", {}, with_key),
    f"DELETE {_ENDPOINT}/prompts": Change("prompt.delete", None, endpoint),
    "POST /v2/secrets/{namespace}": Change("secret.create", {"name": "hush", "value": "hushed"}),
    "PATCH /v2/secrets/{namespace}/{name}": Change("secret.update", {"value": "other"}, secret),
    "DELETE /v2/secrets/{namespace}/{name}": Change("secret.delete", None, secret),
    "POST /v2/integrations/{namespace}": Change(
        "integration.create", {"name": "hub", "kind": "huggingface", "values": {"token": "hf_hushed"}}
    ),
    "PATCH /v2/integrations/{namespace}/{name}": Change("integration.update", {"values": {"token": "hf_other"}}, integration),
    "DELETE /v2/integrations/{namespace}/{name}": Change("integration.delete", None, integration),
    "POST /v2/vault/reseal": Change("vault.reseal", {}, sealed_otherwise),
    "POST /v2/tenants": Change("tenant.create", {"name": "new-tenant"}),
    "PATCH /v2/tenants/{tenant}": Change("tenant.update", {"description": "other"}, tenant),
    "DELETE /v2/tenants/{tenant}": Change("tenant.delete", None, tenant),
    "POST /v2/namespaces": Change("namespace.create", {"name": "new-space", "tenant": "admin"}),
    "PATCH /v2/namespaces/{namespace}": Change("namespace.update", {"description": "other"}, namespace),
    "DELETE /v2/namespaces/{namespace}": Change("namespace.delete", None, namespace),
    "POST /v2/users": Change("user.create", {"name": "new-user", "tenant": "admin", "role": "member"}),
    "PATCH /v2/users/{user}": Change("user.update", {"description": "other"}, user),
    "DELETE /v2/users/{user}": Change("user.delete", None, user),
}
"""`METHOD path` -> its change."""


def prepared(api, route):
    """(method, url, body) of a request that makes the change, with what it needs made before."""
    change, (method, path) = CHANGES[route], route.split(" ")
    values = {"namespace": "admin"} | change.before(api)
    return method, "/manage" + path.format(**values), change.body
