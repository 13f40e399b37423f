"""Salts of the engine's prefix cache: what one tenant's prompts left there is never found by another's, not even by its speed.

Salts are made here alone. A client's own `cache_salt` could be another tenant's guess, so it is taken out of every body.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from deployments import usage

FIELD = "cache_salt"


def maker(secret: bytes) -> Callable[[usage.Account | None], str]:
    """Makes the salt of an account: the same for all requests of a tenant. Requests without a key have one of their own."""

    def salt(account: usage.Account | None) -> str:
        if account is None:
            owner = "platform"
        elif account.tenant or account.key:
            owner = f"tenant:{account.tenant}" if account.tenant else f"key:{account.key}"
        else:
            owner = "public"
        return hmac.new(secret, f"prefix-cache/{owner}".encode(), hashlib.sha256).hexdigest()[:32]

    return salt


def drop_those_of_clients() -> None:
    """From now on JSON bodies that this process reads lack the field: whatever a client says there is neither used nor an error."""
    read = Request.json

    async def json(request: Request) -> Any:
        body = await read(request)
        if isinstance(body, dict):
            body.pop(FIELD, None)
        return body

    Request.json = json  # type: ignore[method-assign,assignment]
