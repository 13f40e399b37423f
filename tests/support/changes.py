"""How each changing route of the management API makes a change: what has to be there before, and what is sent."""

import dataclasses

from support.api import ECHO

from cluster import keys, records

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


def platform_key(api):
    made = keys.mint(keys.PLATFORM)
    api.store.add_key(records.Key(made.id, made.digest, keys.PLATFORM, "admin", owner="admin"))
    return {"key": made.id}


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
    "DELETE /v2/keys/{key}": Change("platform-key.revoke", None, platform_key),
}
"""`METHOD path` -> its change."""


def prepared(api, route):
    """(method, url, body) of a request that makes the change, with what it needs made before."""
    change, (method, path) = CHANGES[route], route.split(" ")
    values = {"namespace": "admin"} | change.before(api)
    return method, "/manage" + path.format(**values), change.body
