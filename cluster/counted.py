"""What engines counted of requests, as the request log asks for it: read from the rows that `cluster.meter` stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from cluster import messages
from cluster.store.base import Store
from cluster.usage_records import UsageRow

FIELDS = tuple(field.name for field in dataclasses.fields(messages.Usage))


class Counted:
    """`cluster.request_search.Tokens` on the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def tokens_of(self, ids: Sequence[str]) -> Mapping[str, messages.Usage]:
        """Those requests that have a record. Raises Unavailable when the database does not answer."""
        return {identity: _usage(row) for identity, row in self._store.usage_rows(ids).items()}


def _usage(row: UsageRow) -> messages.Usage:
    return messages.Usage(**{name: getattr(row, name) for name in FIELDS})
