"""The audit log: rows chained by a hash that only who has the cluster secret can make, so that a change of any of them shows.

Who gets a row and what stands in it is decided by `cluster.api.trail`; the rows are kept by the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import hmac
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from cluster import errors, home, keys, records, vault
from cluster.actor import Actor
from cluster.store.audit_store import AuditFilter
from cluster.store.base import Store

log = logging.getLogger(__name__)

LONGEST_TEXT, LONGEST_DETAIL = 400, 8192
"""Characters of one field of a row, and of its detail."""
PAGE = 1000
"""Rows that are checked at once."""
HEAD = "audit-head"
"""File in the platform's folder: the newest row, as `{"seq", "hash"}`."""


@dataclasses.dataclass(frozen=True)
class Head:
    """The newest row that this machine has written: whatever the database says, the log had it."""

    seq: int
    hash: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check of the whole log found."""

    rows: int
    """How many fit, from the first one on."""
    hash: str
    """Of the last row that fits."""
    problem: str = ""
    """Why the first row that does not fit does not; '' = all fit."""
    bad: int | None = None
    """Its number."""
    warning: str = ""
    """What could not be checked."""

    @property
    def intact(self) -> bool:
        """Whether nothing was found that does not fit."""
        return not self.problem

    def wire(self) -> dict[str, Any]:
        """As an answer."""
        words = {"problem": self.problem or None, "warning": self.warning or None}
        return {"intact": self.intact, "rows": self.rows, "hash": self.hash, "bad": self.bad, **words}


class HeadFile:
    """Remembers the newest row outside of the database, so that cutting off the log's end is noticed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, row: records.Audit) -> None:
        """Remember this row, unless a later one is remembered already."""
        with self._locked():
            known = self.read()
            if known is None or known.seq < row.seq:
                home.write_private(self._path, json.dumps({"seq": row.seq, "hash": row.hash}) + "\n")

    def read(self) -> Head | None:
        """None when there is no such file. Raises Conflict when it is not one of ours."""
        try:
            found = json.loads(self._path.read_text())
            return Head(int(found["seq"]), str(found["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise errors.Conflict(f"{self._path.name} in the platform's folder cannot be read: put it back from a backup.") from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.with_name(f".{self._path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class AuditLog:
    """One per process; thread-safe."""

    def __init__(self, store: Store, secret: bytes, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """`secret` is the cluster secret, `folder` the platform's."""
        self._store = store
        self._key = vault.derived(secret, b"moorage audit")
        self._head = HeadFile(folder / HEAD)
        self._clock = clock
        self._noting = ThreadPoolExecutor(1, "audit")
        self._lock = threading.Lock()
        self._newest: records.Audit | None = None
        """What is still to be noted in the file of the head. No change waits for that: a crash before it only leaves an older head."""

    def append(
        self,
        actor: Actor,
        action: str,
        resource: str,
        detail: Mapping[str, Any],
        *,
        namespace: str = "",
        outcome: Literal["done", "refused"] = "done",
        status: int = 200,
    ) -> None:
        """Append a row, as part of the transaction that this thread is in."""
        row = records.Audit(
            seq=0,
            at=round(self._clock(), 3),
            actor=clean(actor.name),
            tenant=clean(actor.tenant),
            role=actor.role,
            key_id=actor.key_id,
            source=clean(actor.source),
            request_id=clean(actor.request_id),
            action=action,
            resource=clean(resource),
            namespace=clean(namespace),
            outcome=outcome,
            status=status,
            detail=text_of(detail),
        )
        stored = self._store.append_audit(row, self.seal)
        self._store.afterwards(lambda: self._remember(stored))

    def _remember(self, row: records.Audit) -> None:
        with self._lock:
            known, self._newest = self._newest, max(row, self._newest or row, key=lambda one: one.seq)
        if known is None:
            self._noting.submit(self._note_newest)

    def _note_newest(self) -> None:
        with self._lock:
            row, self._newest = self._newest, None
        if row is None:
            return
        try:
            self._head.note(row)
        except (OSError, errors.Conflict):  # the change is made: it is not to be answered with an error
            log.exception("the audit log's newest row %d could not be noted in %s", row.seq, HEAD)

    def listed(self, wanted: AuditFilter, before: int | None, limit: int) -> list[records.Audit]:
        """Newest first."""
        return self._store.audit(wanted, before=before, limit=limit)

    def seal(self, row: records.Audit) -> str:
        """The row's hash: HMAC-SHA256 over the hash of the row before it and every field."""
        fields = [getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "hash"]
        return hmac.new(self._key, json.dumps(fields, separators=(",", ":")).encode(), hashlib.sha256).hexdigest()

    def verify(self) -> Verdict:
        """Check every row from the first on, and that the newest one that was remembered is among them."""
        self._noting.submit(self._note_newest).result()
        try:
            head = self._head.read()
        except errors.Conflict as exc:
            return Verdict(0, "", exc.message)
        last = Head(0, "")
        for row in self._rows():
            problem = self._misfit(row, last, head)
            if problem:
                return Verdict(last.seq, last.hash, problem, last.seq + 1)
            last = Head(row.seq, row.hash)
        if head is not None and head.seq > last.seq:
            problem = f"The end of the log is cut off: it had row {head.seq}, and the last one is row {last.seq}."
            return Verdict(last.seq, last.hash, problem, last.seq + 1)
        warning = "" if head or not last.seq else f"There is no {HEAD} in the platform's folder: a cut-off end would not show."
        return Verdict(last.seq, last.hash, warning=warning)

    def _misfit(self, row: records.Audit, last: Head, head: Head | None) -> str:
        """Why a row cannot follow `last`; '' = it does."""
        if row.seq != last.seq + 1:
            return f"Row {last.seq + 1} is missing: row {row.seq} comes after row {last.seq}."
        if not hmac.compare_digest(row.hash, self.seal(row)):
            return f"Row {row.seq} was edited, or put in another row's place: its hash is not that of what it says."
        if not hmac.compare_digest(row.previous, last.hash):
            return f"Row {row.seq} does not follow row {last.seq}, as which another one was written."
        if head is not None and head.seq == row.seq and not hmac.compare_digest(head.hash, row.hash):
            return f"Row {row.seq} is not the one that was written as such."
        return ""

    def _rows(self) -> Iterator[records.Audit]:
        last = 0
        while rows := self._store.audit_after(last, PAGE):
            yield from rows
            last = rows[-1].seq


def clean(text: str) -> str:
    """A field as every database keeps it: without key texts, NUL and half characters, and not endless."""
    bare = without_keys(text[: 4 * LONGEST_TEXT]).encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return bare[:LONGEST_TEXT]


def without_keys(text: str) -> str:
    """The text with each API key in it shortened to its kind and id."""
    return re.sub(keys.LIKE, r"moor_\1_\2_...", text)


def text_of(detail: Mapping[str, Any]) -> str:
    """The detail as JSON; what would be too long keeps the names of what changed."""
    text = without_keys(json.dumps(detail, sort_keys=True, separators=(",", ":")))
    if len(text) <= LONGEST_DETAIL:
        return text
    names = sorted(map(str, detail.get("changed", ())))
    return json.dumps({"changed": [name[:100] for name in names[:50]], "shortened": True}, separators=(",", ":"))
