"""Routes as they are declared. The application builds each of them once, when all are known: see `cluster.api.app`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Required, TypedDict, TypeVar, Unpack

from fastapi import FastAPI
from starlette.responses import Response

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """What FastAPI is told of a route beside its path and handler, in FastAPI's words."""

    summary: Required[str]
    description: str
    response_model: Any
    response_class: type[Response]
    responses: dict[int | str, dict[str, Any]]
    openapi_extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Route:
    """One of them."""

    method: str
    path: str
    handler: Callable[..., Any]
    tag: str
    options: Options

    def add_to(self, app: FastAPI) -> None:
        """Build it."""
        app.add_api_route(self.path, self.handler, methods=[self.method], tags=[self.tag], **self.options)


class Routes:
    """Those of one subject, in order. `get`, `post`, ... declare the function below them."""

    def __init__(self, tag: str, prefix: str = "") -> None:
        self._tag = tag
        self._prefix = prefix
        self._declared: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._declared)

    def get(self, path: str, **options: Unpack[Options]) -> Callable[[Handler], Handler]:
        """A route that only reads."""
        return self._declares("GET", path, options)

    def post(self, path: str, **options: Unpack[Options]) -> Callable[[Handler], Handler]:
        """One that makes or does something."""
        return self._declares("POST", path, options)

    def put(self, path: str, **options: Unpack[Options]) -> Callable[[Handler], Handler]:
        """One that changes a thing."""
        return self._declares("PUT", path, options)

    def patch(self, path: str, **options: Unpack[Options]) -> Callable[[Handler], Handler]:
        """One that changes what is given of a thing."""
        return self._declares("PATCH", path, options)

    def delete(self, path: str, **options: Unpack[Options]) -> Callable[[Handler], Handler]:
        """One that removes a thing."""
        return self._declares("DELETE", path, options)

    def _declares(self, method: str, path: str, options: Options) -> Callable[[Handler], Handler]:
        def declared(handler: Handler) -> Handler:
            self._declared.append(Route(method, self._prefix + path, handler, self._tag, options))
            return handler

        return declared
