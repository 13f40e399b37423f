"""Who may call what, as one table: asked of HAProxy, of the slow path, and of `gateway.access`."""

from __future__ import annotations

from typing import Any

ENDPOINTS: dict[str, dict[str, Any]] = {
    "acme/plain": {},
    "acme/open-one": {"type": "public"},
    "acme/closed": {"type": "private", "shared_with": ("globex", "*")},
    "acme/shared-one": {"shared_with": ("globex",)},
    "acme/shared-all": {"shared_with": ("*",)},
    "lab/plain": {},
    "lab/closed": {"type": "private"},
}
"""ns/name -> fields of the endpoint."""

GRANTS = {"t:acme": ("acme", "lab"), "u:ann": ("lab",), "u:zoe": ()}

KEYS: dict[str, dict[str, Any]] = {
    "member": {"tenant": "acme", "role": "member", "scope": "u:zoe"},
    "member granted lab": {"tenant": "acme", "role": "member", "scope": "u:ann"},
    "admin of the tenant": {"tenant": "acme", "role": "admin", "scope": "t:acme"},
    "viewer": {"tenant": "acme", "role": "viewer", "scope": "t:acme"},
    "of globex": {"namespace": "globex", "tenant": "globex", "role": "admin", "scope": "t:globex"},
    "viewer of globex": {"namespace": "globex", "tenant": "globex", "role": "viewer", "scope": "t:globex"},
    "of initech": {"namespace": "initech", "tenant": "initech", "role": "member", "scope": "u:ann"},
    "without a tenant": {"namespace": "initech"},
    "expiring": {"tenant": "acme", "role": "member", "scope": "u:zoe", "expires_at": 32503680000.0},
    "endpoint key": {"kind": "e", "endpoint": "acme/closed", "tenant": "acme"},
    "endpoint key, expiring": {"kind": "e", "endpoint": "acme/plain", "tenant": "acme", "expires_at": 32503680000.0},
}
"""Name -> fields of the key, of namespace acme where they do not say."""

MAY: dict[str, dict[str, int]] = {
    "member": {"acme/plain": 200, "acme/closed": 200, "acme/shared-one": 200},
    "member granted lab": {"acme/plain": 200, "acme/closed": 200, "acme/shared-one": 200, "lab/plain": 200},
    "admin of the tenant": {"acme/plain": 200, "acme/closed": 200, "acme/shared-one": 200, "lab/plain": 200},
    "viewer": {"acme/plain": 403, "acme/closed": 403, "acme/shared-one": 403, "acme/shared-all": 403, "lab/plain": 403},
    "of globex": {"acme/shared-one": 200},
    "viewer of globex": {"acme/shared-one": 403, "acme/shared-all": 403},
    "of initech": {"lab/plain": 200},
    "without a tenant": {},
    "expiring": {"acme/plain": 200, "acme/closed": 200, "acme/shared-one": 200},
    "endpoint key": {"acme/closed": 200, "acme/shared-all": 404},
    "endpoint key, expiring": {"acme/plain": 200, "acme/shared-all": 404},
}
"""What each key is answered; where nothing is said, 200 for a public endpoint and one shared with all, else 404."""


def expected(key: str, path: str) -> int:
    """The status that this key is to get of this endpoint."""
    return MAY[key].get(path, 200 if path in ("acme/open-one", "acme/shared-all") else 404)
