"""Safe retries of POST: the answer to an Idempotency-Key is kept for a day and given again.

Answers may hold an API key, which is shown once: they are kept sealed.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cluster import errors, records
from cluster.store.base import Store

LONGEST = 255


class _Overtaken(Exception):
    """Another try, of another manager, was remembered first: what this one has done is undone."""


class Idempotency:
    """One per router; what is remembered lies in the store."""

    def __init__(self, store: Store, seal: Callable[[str], str], unseal: Callable[[str], str]) -> None:
        self._store = store
        self._seal = seal
        self._unseal = unseal
        self._one_at_a_time = threading.Lock()

    def answer(self, request: Request, scope: str, body: Mapping[str, Any], perform: Callable[[], dict[str, Any]]) -> Response:
        """What `perform` answers, or what it answered the first time. Raises IdempotencyMismatch for another body."""
        key = request.headers.get("idempotency-key")
        if key is None:
            return JSONResponse(perform())
        if not 0 < len(key) <= LONGEST:
            raise errors.InvalidRequest(f"An Idempotency-Key has 1 to {LONGEST} characters.", param="Idempotency-Key")
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        # A retry that overtakes the first try waits for its answer, and does not do the work a second time.
        with self._one_at_a_time:
            known = self._store.remembered(scope, key)
            if known is None:
                made = self._performed(scope, key, digest, perform)
                if made is not None:
                    return Response(made, media_type="application/json")
                known = self._store.remembered(scope, key)
        if known is None or known.body_digest != digest:
            raise errors.IdempotencyMismatch
        return Response(self._unseal(known.body), known.status, {"Idempotency-Replayed": "true"}, media_type="application/json")

    def _performed(self, scope: str, key: str, digest: str, perform: Callable[[], dict[str, Any]]) -> str | None:
        """The answer, remembered in one transaction with the work; None when another try was first, and nothing was done."""
        try:
            # As one: a manager that dies in between would have made what nobody was told of, and could not tell again.
            with self._store.together():
                # The first try's transaction may have ended since, and only now; or end while this one waits to be remembered.
                if self._store.remembered(scope, key) is not None:
                    return None
                text = json.dumps(perform())
                mine = records.Remembered(scope, key, digest, 200, self._seal(text), time.time())
                self._store.remember(mine)
                if self._store.remembered(scope, key) != mine:
                    raise _Overtaken
        except _Overtaken:
            return None
        return text
