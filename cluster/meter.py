"""Takes what replicas tell of their requests: stores each once, prices it, and counts it against limits.

A batch is told again until its answer arrives, by replicas that may be gone by then; the request's id makes that harmless.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster import errors, instance_types, ledger, messages, prices, records
from cluster import spec as specs
from cluster.store.base import Store
from cluster.usage_records import UsageRow

OnUsage = Callable[[str, str, Sequence[messages.Usage]], None]
"""Told the endpoint's path, the replica's id, and those of a batch that are new."""
REMEMBERED = 10_000
"""Revisions whose fields are kept at hand."""
MOST = 2**53
LONGEST = 300
"""Characters of a text that clients chose."""
SPLIT = "~"
"""Between the id of a request and when an attempt at it began that has not got this id for itself."""


@dataclasses.dataclass(frozen=True)
class _Owner:
    """Whose replica it is; `fields` are its revision's, None when it is gone."""

    namespace: str
    endpoint: str
    revision: int
    fields: Mapping[str, Any] | None


@dataclasses.dataclass(eq=False)
class _Told:
    """One record of a batch, as told and as it is to be stored."""

    used: messages.Usage
    row: UsageRow
    batch: _Batch


@dataclasses.dataclass(eq=False)
class _Batch:
    told: list[_Told] = dataclasses.field(default_factory=list)
    new: list[messages.Usage] = dataclasses.field(default_factory=list)
    done: bool = False
    failure: errors.MoorageError | None = None


class Meter:
    """Thread-safe: batches that arrive together are stored in one transaction."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: ledger.Ledger,
        endpoint_of: Callable[[str], records.Endpoint | None],
        types: Callable[[], instance_types.Catalogue],
        news: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`endpoint_of` finds the endpoint of an application; `news` is called when the ledger has something to publish."""
        self._store = store
        self._ledger = ledger
        self._endpoint_of = endpoint_of
        self._types = types
        self._news = news
        self._clock = clock
        self._waiting: list[_Batch] = []
        self._lock = threading.Lock()
        self._owners: OrderedDict[str, _Owner] = OrderedDict()
        self.on_usage: list[OnUsage] = []
        """Called for each batch after it has been stored, in the thread of `add`; they must not raise."""

    def add(self, replica: messages.ReplicaIdentity, used: Sequence[messages.Usage]) -> Sequence[str]:
        """Returns when it is stored: those of the keys whose use counts against no limit now.

        Raises Unavailable when the database does not answer: tell it again then.
        """
        if not used:
            return ()
        owner = self._owner(replica.application)
        rate = self._rate(owner, replica.member)
        now = self._clock()
        batch = _Batch()
        batch.told = [_Told(one, _row(owner, replica, rate, one, now), batch) for one in used]
        with self._lock:
            self._waiting.append(batch)
        try:
            with self._ledger.order:
                if not batch.done:
                    self._store_waiting()
        finally:  # what is stored is not new when it is told again
            for tell in self.on_usage if batch.new else ():
                tell(f"{owner.namespace}/{owner.endpoint}", replica.id, batch.new)
        if batch.failure is not None:
            raise batch.failure
        return self._ledger.unlimited(f"{owner.namespace}/{owner.endpoint}", {one.key for one in used})

    def _store_waiting(self) -> None:
        """All batches that wait, in one transaction; what other attempts used, in a second one."""
        with self._lock:
            batches, self._waiting = self._waiting, []
        for batch in batches:
            batch.done, batch.failure = True, errors.Unavailable("The use could not be stored: tell it again.", retry_after=1)
        told = [one for batch in batches for one in batch.told]
        if again := self._attempts(self._store_new(told)):
            self._store_new(again)
        for batch in batches:
            batch.failure = None

    def _store_new(self, told: Sequence[_Told]) -> list[_Told]:
        """Stores and counts those that are new; returns the others."""
        new = {id(row): row for row in self._store.add_usage([one.row for one in told])}
        for one in told:
            if id(one.row) in new:
                one.batch.new.append(one.used)
        if self._ledger.add(list(new.values())):
            self._news()
        return [one for one in told if id(one.row) not in new]

    def _attempts(self, left: Sequence[_Told]) -> list[_Told]:
        """Of those whose id is known the ones that are no repetition: the edge has tried the request before.

        Each attempt used an engine, so each counts, under an id of its own.
        """
        known = self._store.usage_rows({one.row.id for one in left}) if left else {}
        others = [one for one in left if one.row.id in known and known[one.row.id].started_at != one.row.started_at]
        return [dataclasses.replace(one, row=dataclasses.replace(one.row, id=_attempt(one.row.id, one.row.started_at))) for one in others]

    def _owner(self, application: str) -> _Owner:
        with self._lock:
            if application in self._owners:
                self._owners.move_to_end(application)
                return self._owners[application]
        endpoint = self._endpoint_of(application)
        parsed = specs.parse_application_name(application)
        if parsed is None:
            # Its author may declare another thing under the same name at any time: looked up each time.
            return self._declared(application, endpoint)
        namespace, name, number = parsed
        found = _Owner(namespace, name, number, self._fields(endpoint, number))
        if found.fields is not None:
            with self._lock:
                self._owners[application] = found
                if len(self._owners) > REMEMBERED:
                    self._owners.popitem(last=False)
        return found

    def _declared(self, application: str, endpoint: records.Endpoint | None) -> _Owner:
        if endpoint is None:
            return _Owner("", application[:LONGEST], 0, None)
        return _Owner(endpoint.namespace, endpoint.name, endpoint.target, self._fields(endpoint, endpoint.target))

    def _fields(self, endpoint: records.Endpoint | None, number: int) -> Mapping[str, Any] | None:
        rows = self._store.revisions(endpoint.id) if endpoint is not None else []
        return next((row.fields for row in rows if row.number == number), None)

    def _rate(self, owner: _Owner, member: str) -> prices.Rate:
        if owner.fields is not None:
            return prices.of_revision(owner.fields, member, self._types())
        known = self._store.instance_of(owner.namespace, owner.endpoint, owner.revision)
        return prices.of_instance(*known, self._types()) if known is not None else prices.UNKNOWN


def _row(owner: _Owner, replica: messages.ReplicaIdentity, rate: prices.Rate, used: messages.Usage, now: float) -> UsageRow:
    """As stored. What makes no sense becomes 0, so that one bad record does not hold up the others for ever."""
    share = _amount(used.share_s)
    ended = _amount(used.ended_at) or now
    outcome = used.outcome if used.outcome in ("finished", "aborted") else "failed"
    identity = used.id if used.id.isascii() and used.id.isprintable() and 0 < len(used.id) <= LONGEST else _made_up(replica, used)
    if outcome == "failed" and not _count(used.status):
        # The edge saw no byte of an answer, and makes the request again: the id is for the attempt that was answered.
        identity = _attempt(identity, _amount(used.started_at))
    return UsageRow(
        id=identity,
        namespace=owner.namespace,
        endpoint=owner.endpoint,
        revision=owner.revision,
        replica=replica.id,
        member=replica.member,
        key=_text(used.key),
        tenant=_text(used.tenant),
        route=_text(used.route),
        model=_text(used.model),
        served=_served(owner.fields, replica.member),
        adapter=_adapter(used),
        outcome=outcome,
        status=min(_count(used.status), 999),
        started_at=_amount(used.started_at),
        # A node's clock that is ahead must not put it into a window that has not begun.
        ended_at=min(ended, now),
        prompt_tokens=_count(used.prompt_tokens),
        completion_tokens=_count(used.completion_tokens),
        cached_tokens=_count(used.cached_tokens),
        images=_count(used.images),
        queue_s=_amount(used.queue_s),
        first_token_s=_amount(used.first_token_s),
        total_s=_amount(used.total_s),
        share_s=share,
        accelerator_s=share * rate.accelerators,
        cost=rate.cost(share),
        stored_at=now,
    )


def _served(fields: Mapping[str, Any] | None, member: str) -> str:
    """What answered, in words that clients cannot choose: sums are told apart by it. Of a path or a bucket only the last part."""
    model = (fields or {}).get("model") or {}
    repository = str(model.get("repository") or "")
    if repository.startswith(("/", "s3://")):
        repository = repository.rstrip("/").rsplit("/", 1)[-1]
    return _text(member or repository or next(iter(model.get("image") or {}), ""))


def _adapter(used: messages.Usage) -> str:
    """Of requests that came to nothing none: any name could be asked for."""
    return _text(used.adapter) if used.outcome == "finished" or used.prompt_tokens > 0 else ""


def _attempt(identity: str, started_at: float) -> str:
    return f"{identity}{SPLIT}{started_at:.6f}"


def _made_up(replica: messages.ReplicaIdentity, used: messages.Usage) -> str:
    """The same one each time that the same is told."""
    return hashlib.sha256(f"{replica.id} {used!r}".encode(errors="replace")).hexdigest()[:32]


def _text(value: str) -> str:
    return str(value)[:LONGEST]


def _count(value: float) -> int:
    return int(_amount(value))


def _amount(value: object) -> float:
    """What is no number that could be is 0."""
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return 0.0
    return float(min(max(value, 0), MOST))
