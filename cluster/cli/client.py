"""The management API as the commands use it: one method per verb, the server's own sentence on failure.

Who and where: MOORAGE_URL and MOORAGE_TOKEN, else the credentials that `moorage up` wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx

from cluster import errors, home
from cluster.settings import Settings

PAGE = 500
"""Rows of a list that are asked for at once."""
TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class ApiError(errors.MoorageError):
    """The management API refused."""

    code = "api_error"

    def __init__(self, message: str, status: int, slug: str = "") -> None:
        """`status` is the HTTP status, `slug` the server's `error_type`."""
        super().__init__(message)
        self.status = status
        self.slug = slug


class NoPlatform(errors.MoorageError):
    """There is no platform to talk to: run `moorage up`, or set MOORAGE_URL and MOORAGE_TOKEN."""

    code = "no_platform"


class Client:
    """A connection to one platform as one key. Closes with `with`."""

    def __init__(self, url: str, token: str, namespace: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._namespace = namespace
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, transport=transport, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def namespace(self) -> str:
        """The namespace of the credentials, else the one that the key belongs to."""
        if self._namespace is None:
            self._namespace = str(self.call("GET", "/manage/api/whoami-v2")["name"])
        return self._namespace

    def path(self, name: str = "", rest: str = "") -> str:
        """Route of an endpoint (`name` or `namespace/name`), or of all endpoints of the namespace."""
        namespace, slash, short = name.rpartition("/")
        route = f"/manage/v2/endpoint/{namespace if slash else self.namespace}"
        return route + (f"/{short}" if short else "") + rest

    def call(self, method: str, path: str, body: object = None, params: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON (None when there is none). Raises ApiError with the server's sentence, NoPlatform."""
        with self._translated():
            answer = self._http.request(method, path, json=body, params=params)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refusal(answer)

    def text(self, path: str, params: Mapping[str, Any]) -> str:
        """An answer that is text."""
        with self._translated():
            answer = self._http.request("GET", path, params=params)
        if answer.is_success:
            return answer.text
        raise _refusal(answer)

    def lines(self, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Objects of an answer that goes on: one JSON object per line."""
        with self._translated(), self._http.stream("GET", path, params=params, timeout=httpx.Timeout(5.0, read=None)) as answer:
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            for line in answer.iter_lines():
                if line.strip():
                    yield json.loads(line)

    @contextlib.contextmanager
    def sse(self, path: str, body: object) -> Iterator[Iterator[str]]:
        """The `data:` parts of a POST's event stream."""
        with self._translated(), self._http.stream("POST", path, json=body, timeout=httpx.Timeout(5.0, read=600.0)) as answer:
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            yield (line[5:].strip() for line in answer.iter_lines() if line.startswith("data:"))

    def items(self, path: str, **filters: Any) -> list[dict[str, Any]]:
        """Every row of a list, page by page; filters of None are none."""
        params = {name: value for name, value in filters.items() if value is not None} | {"limit": PAGE}
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, params=params)
            found += page["items"]
            if not page["cursor"]:
                return found
            params["cursor"] = page["cursor"]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise NoPlatform(f"Nothing answers at {self.url}: `moorage status` tells what runs, `moorage up` starts it.") from exc
        except httpx.HTTPError as exc:
            raise NoPlatform(f"{self.url} did not answer ({type(exc).__name__}): `moorage status` tells what runs.") from exc


def connect(transport: httpx.BaseTransport | None = None, namespace: str | None = None) -> Client:
    """A client for the platform that the environment or the credentials name. Raises NoPlatform when neither does."""
    known = home.read_credentials(home.of(Settings()))
    url, token = os.environ.get("MOORAGE_URL"), os.environ.get("MOORAGE_TOKEN")
    if known is None and not (url and token):
        raise NoPlatform
    own = known.namespace if known is not None and not token else None
    return Client(url or (known.url if known else ""), token or (known.token if known else ""), namespace or own, transport)


def _refusal(answer: httpx.Response) -> ApiError:
    """Errors of the management API and of the edge, whichever answered."""
    try:
        found = answer.json()
    except ValueError:
        found = {}
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        return ApiError(str(error.get("message")), answer.status_code, str(error.get("code", "")))
    sentence = ", ".join(map(str, error)) if isinstance(error, list) else error
    slug = found.get("error_type", "") if isinstance(found, dict) else ""
    return ApiError(str(sentence or f"The platform answered {answer.status_code}."), answer.status_code, str(slug))
