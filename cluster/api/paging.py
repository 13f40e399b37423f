"""Lists, page by page: `search`, `limit` and `cursor` as every list takes them.

A row's mark is the cursor of what comes after it, so a row that is deleted between two pages leads nobody astray. Without a
`limit` a list is whole: huggingface_hub knows of no pages.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import Depends, Query
from starlette.responses import JSONResponse, Response

from cluster import errors, records
from cluster.api import wire

T = TypeVar("T")
Row = TypeVar("Row", contravariant=True)


@dataclasses.dataclass(frozen=True)
class Order(Generic[Row]):
    """How a list is ordered and searched."""

    mark: Callable[[Row], str]
    """Rises from row to row."""
    text: Callable[[Row], str]
    """What `search` looks into."""
    form: str = r"[A-Za-z0-9._@-]{1,100}"
    """A pattern that every mark has."""


class Named(Protocol):
    """A row of a list that is ordered by name."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def description(self) -> str:
        """What it is, for people."""


BY_NAME: Order[Named] = Order(lambda row: row.name, lambda row: f"{row.name} {row.description}")
KEYS: Order[records.Key] = Order(
    # Seven digits tell apart whatever two times a float does.
    lambda row: f"{row.created_at:018.7f}-{row.id}",
    lambda row: f"{row.id} {row.owner} {row.description}",
    r"\d{10}\.\d{7}-[0-9A-Za-z]{1,64}",
)
"""Oldest first, as the store lists them."""


@dataclasses.dataclass(frozen=True)
class Paging:
    """Query parameters of a list."""

    search: Annotated[str | None, Query(max_length=200, description="Part of a name or description.")] = None
    limit: Annotated[int | None, Query(ge=1, le=100_000, description="All, where it is left out.")] = None
    cursor: Annotated[str | None, Query(description="From the page before.")] = None

    def answer(self, rows: Iterable[T], order: Order[T], show: Callable[[T], dict[str, Any]]) -> Response:
        """The page of `rows`, which are in their order. Raises InvalidRequest for a cursor that was none."""
        found, cursor = self.cut(self.after(rows, order), order.mark)
        return JSONResponse(wire.page([show(row) for row in found], cursor))

    def after(self, rows: Iterable[T], order: Order[T]) -> Iterator[T]:
        """Those that are searched for, from the cursor on. Raises InvalidRequest."""
        if self.cursor is not None and not re.fullmatch(order.form, self.cursor):
            raise errors.InvalidRequest("cursor takes what the page before said.", param="cursor")
        wanted = (self.search or "").lower()
        return (row for row in rows if (self.cursor is None or order.mark(row) > self.cursor) and wanted in order.text(row).lower())

    def cut(self, rows: Iterable[T], mark: Callable[[T], str]) -> tuple[list[T], str | None]:
        """As many of them as are asked for, and the cursor of the next page; looks at one more and at no other."""
        found = list(itertools.islice(rows, None if self.limit is None else self.limit + 1))
        page = found[: self.limit]
        return page, mark(page[-1]) if len(page) < len(found) else None


Paged = Annotated[Paging, Depends()]
