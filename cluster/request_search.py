"""Finds requests in the request log, newest first: bytes are looked at before anything is parsed, and no call works without end.

Who may ask for what is the API's business; what the engines know of a request comes from usage records (`Tokens`).
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cluster import errors, messages, request_line, request_log
from cluster.request_line import Request

BLOCK = 2**18
WORK_BYTES = 512 * 2**20
WORK_S = 2.0
"""What one call may read, and how long; then it returns what it found, and where to go on."""
LATE_S = 60.0
"""Lines of several threads and gateways are in the order of their times, but for so much."""
CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d\.\d{3}\.log):(\d{1,15})")
PLAIN = re.compile(r"[A-Za-z0-9/._~:@-]+")
"""Text that is the same in HAProxy's JSON, but for slashes."""
ACTIVE = re.compile(rb'"active":(\d+)')
ENDS: Mapping[str, bytes] = {
    "client_left": b'"end":"C',
    "client_timed_out": b'"end":"c',
    "queue_timed_out": b'"end":"sQ',
    "timed_out": b'"end":"s',
}
"""What lines of an outcome have; others have several ways to say it."""
OWN_PATHS = (b'"path":"\\/manage', b'"path":"\\/console', b'"path":"\\/health"')


class Tokens(Protocol):
    """What engines counted, by the edge's request id; ids without a record are left out."""

    def tokens_of(self, ids: Sequence[str]) -> Mapping[str, messages.Usage]:
        """Of at most a page of requests."""
        ...


class NoTokens:
    """The twin: knows what it was given."""

    def __init__(self, *known: messages.Usage) -> None:
        self.known = {usage.id: usage for usage in known}

    def tokens_of(self, ids: Sequence[str]) -> Mapping[str, messages.Usage]:
        """See Tokens."""
        return {id_: self.known[id_] for id_ in ids if id_ in self.known}


@dataclasses.dataclass(frozen=True)
class Scope:
    """Whose requests may be found: those for endpoints of these namespaces, and those with keys of these tenants. None = all.

    Each by its name and the time at which it was made: what began before was another's of that name.
    """

    namespaces: Mapping[str, float] | None = None
    tenants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __contains__(self, request: Request) -> bool:
        if self.namespaces is None:
            return True
        space = request.endpoint.partition("/")[0]
        return request.began >= min(self.namespaces.get(space, math.inf), self.tenants.get(request.tenant, math.inf))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which requests. `status` is a number or `4xx`, `5xx`, ...; times are Unix seconds, `slower` is in seconds; `text` is in the path."""

    scope: Scope = Scope()
    endpoint: str | None = None
    made: float = 0.0
    """When the endpoint was made: what began before was another one's of that name."""
    id: str | None = None
    key: str | None = None
    status: str | None = None
    code: str | None = None
    replica: str | None = None
    outcome: str | None = None
    slower: float = 0.0
    since: float = 0.0
    until: float | None = None
    text: str | None = None
    management: bool = False
    """Those for the management API and the console too."""

    def __contains__(self, request: Request) -> bool:
        pairs = (
            *((self.endpoint, request.endpoint), (self.id, request.id), (self.key, request.key)),
            *((self.code, request.code), (self.outcome, request.outcome), (self.replica, request.server)),
        )
        return (
            all(asked in (None, has) for asked, has in pairs)
            and _has_status(self.status, request.status)
            and request.total_s >= self.slower
            and self.since <= request.at
            and self.made <= request.began
            and (self.until is None or request.at <= self.until)
            and (self.text is None or self.text in request.path)
            and request in self.scope
        )

    def needles(self) -> list[bytes]:
        """Bytes that each line that is wanted has."""
        exact = {"id": self.id, "key": self.key, "code": self.code}
        found = [f'"{name}":"{value}"'.encode() for name, value in exact.items() if value]
        if self.endpoint:
            found.append(f'"endpoint":"{self.endpoint}'.replace("/", "\\/").encode())
        if self.status:
            found.append(f'"status":{self.status[0] if self.status.endswith("xx") else self.status}'.encode())
        if self.replica:
            found.append(f'"{self.replica}"'.encode())
        if self.outcome is not None and self.outcome in ENDS:
            found.append(ENDS[self.outcome])
        if self.text and PLAIN.fullmatch(self.text):
            found.append(self.text.replace("/", "\\/").encode())
        return found

    def may_be(self, line: bytes) -> bool:
        """Whether it is worth parsing: that costs ten times as much."""
        at, active = request_log.TIME.match(line), ACTIVE.search(line) if self.slower else None
        if at is not None and (int(at[1]) < self.since * 1000 or (self.until is not None and int(at[1]) > self.until * 1000)):
            return False
        if active is not None and int(active[1]) < self.slower * 1000:
            return False
        return self.management or not any(path in line for path in OWN_PATHS)


@dataclasses.dataclass(frozen=True)
class Found:
    """Newest first. `cursor` goes on where this ended, None at the end of the log; `looked_to` is the time that was come to."""

    requests: tuple[Request, ...]
    cursor: str | None
    looked_to: float | None


class RequestSearch:
    """Reads the files that `cluster.request_log` writes."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock

    def search(self, wanted: Wanted, limit: int, cursor: str | None = None) -> Found:
        """At most `limit` requests. Raises InvalidRequest for a cursor that was none."""
        deadline = self._clock() + WORK_S
        found: list[Request] = []
        looked_to: float | None = None
        work = 0
        for path, end in self._parts(wanted, cursor):
            for block in blocks(path, end):
                for position, line in block.matching(wanted.needles()):
                    request = request_line.parse(line) if wanted.may_be(line) else None
                    if request is None or request not in wanted:
                        continue
                    found.append(request)
                    if len(found) == limit:
                        return Found(tuple(found), f"{path.name}:{position}", request.at)
                work += len(block.data)
                looked_to = block.oldest() or looked_to
                if looked_to is not None and looked_to < wanted.since - LATE_S:
                    break
                if work > WORK_BYTES or self._clock() > deadline:
                    return Found(tuple(found), f"{path.name}:{block.start}", looked_to)
        return Found(tuple(found), None, looked_to)

    def _parts(self, wanted: Wanted, cursor: str | None) -> Iterator[tuple[Path, int | None]]:
        """The files to look into, newest first, each up to a position (None = all of it)."""
        match = CURSOR.fullmatch(cursor) if cursor is not None else None
        if cursor is not None and match is None:
            raise errors.InvalidRequest("cursor is what an earlier answer gave as its cursor.", param="cursor")
        for path in reversed(request_log.files(self._folder)):
            if match is not None and path.name > match[1]:
                continue
            times = request_log.range_of(path)
            if times is not None and (times[1] < wanted.since or (wanted.until is not None and times[0] - LATE_S > wanted.until)):
                continue
            yield path, int(match[2]) if match is not None and path.name == match[1] else None


@dataclasses.dataclass(frozen=True)
class Block:
    """Whole lines of a file, beginning at `start`."""

    start: int
    data: bytes = dataclasses.field(repr=False)

    def matching(self, needles: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """(position, line), the last one first, of those that have all needles."""
        if not all(needle in self.data for needle in needles):
            return
        position = self.start + len(self.data)
        for line in reversed(self.data.splitlines(keepends=True)):
            position -= len(line)
            if all(needle in line for needle in needles):
                yield position, line

    def oldest(self) -> float | None:
        """The time of its first line."""
        match = request_log.TIME.match(self.data)
        return int(match[1]) / 1000 if match else None


def blocks(path: Path, end: int | None = None) -> Iterator[Block]:
    """The lines before `end`, the last block first. A file that has just been deleted has none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = min(file.seek(0, 2), end if end is not None else 2**62)
        rest = b""
        while position > 0:
            start = max(0, position - BLOCK)
            file.seek(start)
            data = file.read(position - start) + rest
            cut = data.find(b"\n") + 1 if start else 0
            rest, position = data[:cut], start
            if len(data) > cut:
                yield Block(start + cut, data[cut:])


def _has_status(asked: str | None, has: int | None) -> bool:
    if asked is None:
        return True
    return has is not None and (str(has) == asked or (asked.endswith("xx") and str(has)[0] == asked[0]))
