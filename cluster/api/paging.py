"""Lists of named things, page by page: `search`, `limit` and `cursor` as every list takes them."""

import dataclasses
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import JSONResponse, Response

from cluster.api import wire


@dataclasses.dataclass(frozen=True)
class Paging:
    """Query parameters of a list that is ordered by name."""

    search: Annotated[str | None, Query(description="Part of a name or description.")] = None
    limit: Annotated[int | None, Query(ge=1, le=100_000, description="All, where it is left out.")] = None
    cursor: Annotated[str | None, Query(description="From the page before.")] = None

    def answer(self, items: list[dict[str, Any]]) -> Response:
        """The page of `items`, which have a name and a description."""
        wanted = [item for item in items if (self.cursor is None or item["name"] > self.cursor) and self._matches(item)]
        page = wanted[: self.limit]
        return JSONResponse(wire.page(page, page[-1]["name"] if len(page) < len(wanted) else None))

    def _matches(self, item: dict[str, Any]) -> bool:
        return self.search is None or self.search.lower() in f"{item['name']} {item['description']}".lower()
