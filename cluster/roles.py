"""Who may do what with the management API: one table, route by route. What it does not name, nobody may do.

`cluster.api.auth` looks here before a handler runs; which namespaces an actor may enter is `cluster.actor`'s to say, and who
may call an endpoint's model the edge's. A test asks every route of the application as every role.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

VIEWER, MEMBER, ADMIN, OPERATOR = "viewer", "member", "admin", "operator"
ROLES = (VIEWER, MEMBER, ADMIN, OPERATOR)
"""Each may do what those before it may. A viewer looks, a member creates and calls, an admin decides about all of its tenant,
an operator about all tenants and the platform."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """The least role that may use a route; with `owner`, members may use it on endpoints that are theirs."""

    role: str
    owner: bool = False


LOOK, WORK, TENANT, PLATFORM = Rule(VIEWER), Rule(MEMBER), Rule(ADMIN), Rule(OPERATOR)
OWN = Rule(ADMIN, owner=True)

_ENDPOINT = "/v2/endpoint/{namespace}/{name}"

RULES: Mapping[str, Rule] = {
    # endpoints
    "GET /v2/endpoint/{namespace}": LOOK,
    "POST /v2/endpoint/{namespace}": WORK,
    f"GET {_ENDPOINT}": LOOK,
    f"PUT {_ENDPOINT}": WORK,
    f"DELETE {_ENDPOINT}": OWN,
    **{f"POST {_ENDPOINT}/{command}": WORK for command in ("pause", "resume", "scale-to-zero", "restart", "rollback")},
    f"GET {_ENDPOINT}/revisions": LOOK,
    f"GET {_ENDPOINT}/revisions/{{number}}": LOOK,
    f"GET {_ENDPOINT}/adapters": LOOK,
    f"POST {_ENDPOINT}/adapters": WORK,
    f"GET {_ENDPOINT}/adapters/{{adapter}}": LOOK,
    f"DELETE {_ENDPOINT}/adapters/{{adapter}}": WORK,
    # what goes on with them
    f"GET {_ENDPOINT}/events": LOOK,
    f"GET {_ENDPOINT}/logs": LOOK,
    f"GET {_ENDPOINT}/metrics": LOOK,
    f"GET {_ENDPOINT}/usage": LOOK,
    f"GET {_ENDPOINT}/limits": LOOK,
    "GET /v2/usage": LOOK,
    "GET /v2/limits": LOOK,
    f"GET {_ENDPOINT}/open-metrics": LOOK,
    "GET /v2/open-metrics": LOOK,
    # requests; what clients sent is the owner's to see, and nobody's but the admin's and the operator's beside
    f"GET {_ENDPOINT}/requests": LOOK,
    f"GET {_ENDPOINT}/requests/{{request}}": LOOK,
    f"GET {_ENDPOINT}/requests/{{request}}/prompt": OWN,
    f"DELETE {_ENDPOINT}/prompts": OWN,
    "GET /v2/requests": TENANT,
    "GET /v2/requests/{request}": TENANT,
    # their keys
    f"GET {_ENDPOINT}/keys": OWN,
    f"POST {_ENDPOINT}/keys": OWN,
    f"GET {_ENDPOINT}/keys/{{key}}": OWN,
    f"PATCH {_ENDPOINT}/keys/{{key}}": OWN,
    f"DELETE {_ENDPOINT}/keys/{{key}}": OWN,
    f"POST {_ENDPOINT}/keys/{{key}}/rotate": OWN,
    # the model registry
    "GET /v2/models/{namespace}": LOOK,
    "POST /v2/models/{namespace}": WORK,
    "GET /v2/models/{namespace}/{name}": LOOK,
    "PATCH /v2/models/{namespace}/{name}": WORK,
    "DELETE /v2/models/{namespace}/{name}": WORK,
    "GET /v2/models/{namespace}/{name}/versions": LOOK,
    "POST /v2/models/{namespace}/{name}/versions": WORK,
    "GET /v2/models/{namespace}/{name}/versions/{number}": LOOK,
    "DELETE /v2/models/{namespace}/{name}/versions/{number}": WORK,
    # secrets and integrations
    **{
        f"{method} /v2/{shelf}/{{namespace}}{rest}": rule
        for shelf in ("secrets", "integrations")
        for method, rest, rule in (
            ("GET", "", LOOK),
            ("POST", "", WORK),
            ("GET", "/{name}", LOOK),
            ("PATCH", "/{name}", WORK),
            ("DELETE", "/{name}", WORK),
        )
    },
    "POST /v2/vault/reseal": PLATFORM,
    # the platform
    "GET /v2/provider/{namespace}": LOOK,
    "GET /v2/settings": LOOK,
    # what was done, and what was refused
    "GET /v2/audit": TENANT,
    "GET /v2/audit/verify": PLATFORM,
    "GET /api/whoami-v2": LOOK,
    "GET /api/v1/catalog/list": LOOK,
    # tenants, their namespaces and users; an admin sees and changes those of its own tenant
    "GET /v2/tenants": TENANT,
    "POST /v2/tenants": PLATFORM,
    "GET /v2/tenants/{tenant}": TENANT,
    "PATCH /v2/tenants/{tenant}": PLATFORM,
    "DELETE /v2/tenants/{tenant}": PLATFORM,
    "GET /v2/namespaces": LOOK,
    "POST /v2/namespaces": TENANT,
    "GET /v2/namespaces/{namespace}": LOOK,
    "PATCH /v2/namespaces/{namespace}": TENANT,
    "DELETE /v2/namespaces/{namespace}": TENANT,
    "GET /v2/users": TENANT,
    "POST /v2/users": TENANT,
    "GET /v2/users/{user}": TENANT,
    "PATCH /v2/users/{user}": TENANT,
    "DELETE /v2/users/{user}": TENANT,
    # endpoints of others that are shared with one's tenant
    "GET /v2/shared": LOOK,
    # platform keys: one's own, for an admin those of its tenant; a key hands out no more than it may itself
    "GET /v2/keys": LOOK,
    "POST /v2/keys": LOOK,
    "GET /v2/keys/{key}": LOOK,
    "PATCH /v2/keys/{key}": LOOK,
    "DELETE /v2/keys/{key}": LOOK,
    "POST /v2/keys/{key}/rotate": LOOK,
}
"""`METHOD path` as in the API's description -> rule."""


def rank(role: str) -> int:
    """Higher = may do more; an unknown role may do nothing (-1)."""
    return ROLES.index(role) if role in ROLES else -1


def lesser(one: str, other: str) -> str:
    """The role that may do less of the two."""
    return min(one, other, key=rank)
