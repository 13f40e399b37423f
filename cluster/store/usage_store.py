"""The part of the Store port that is about metering. Nothing here counts as a change (`Store.changes`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from cluster.usage_records import Asked, CapacityDay, Held, Spent, UsageRow, Used

Payer = Literal["key", "endpoint"]


class UsageStore(Protocol):
    """As `cluster.store.base.Store`, of which it is a part."""

    def add_usage(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        """Store requests, and add them up by day. Returns those (the same objects) that are new: the
        first one told of an id is kept.

        All are stored and added up, or none; endpoints and keys need not be there (any more).
        """

    def usage_rows(self, ids: Collection[str]) -> dict[str, UsageRow]:
        """Those requests that are (still) stored, by id."""

    def prune_usage(self, before: float, limit: int = 10_000) -> int:
        """Forget requests that were stored before a moment, `limit` at once; returns how many. What was added up stays."""

    def spent(self, payer: Payer, since: str, only: Collection[str] | None = None) -> dict[str, Spent]:
        """What was used up from the day `since` on, by key id or by ns/name; of `only` these, or of all. Those without use are absent."""

    def spent_lately(self, payer: Payer, since: float, only: Collection[str] | None = None) -> dict[str, Spent]:
        """The same by requests that ended at or after a moment, which must lie within the time that requests are kept."""

    def used(self, asked: Asked) -> list[Used]:
        """Sums by group, in order of the groups; one group in all where `asked.by` is empty."""

    def held(self, asked: Asked) -> list[Held]:
        """Sums of hardware. Of `asked.by` and of its conditions only those that hardware can be told apart by count."""

    def add_capacity(self, rows: Collection[CapacityDay], was: float, until: float) -> bool:
        """Add hardware that was held from `was` until `until`.

        False, and nothing is added, when it has been accounted for until another moment than `was`.
        """

    def accounted_until(self) -> float:
        """Until when hardware has been accounted for; 0 = never yet."""

    def instance_of(self, namespace: str, endpoint: str, revision: int) -> tuple[str, str] | None:
        """Instance type and size that a revision, deleted or not, was last seen on; None when it never was."""

    def key_words(self, ids: Collection[str]) -> Mapping[str, tuple[str, str]]:
        """Namespace and description of those keys that are stored, by id."""
