"""One request as the edge's access log tells it, and how it ended in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cluster import messages

OUTCOMES: Mapping[str, str] = {
    "finished": "It was answered whole.",
    "refused": "The edge refused it.",
    "failed": "It was answered with an error.",
    "engine_failed": "The engine broke off in the middle of its answer.",
    "client_left": "The client left before the answer was whole.",
    "client_timed_out": "The client stopped in the middle: it neither sent nor read on.",
    "cut": "It was cut off: its key was revoked, a limit was reached, or its replica had to go.",
    "replica_broke": "The replica broke the connection.",
    "unreachable": "No replica could be reached.",
    "timed_out": "The replica was silent for too long.",
    "queue_timed_out": "It waited too long for a free place on a replica.",
    "edge_failed": "The edge could not go on with it.",
}
"""Slug -> what it means. Which one it is tells `outcome`."""
NOBODY = frozenset({"", "-", "<NOSRV>", "gateway", "serve"})
"""What HAProxy names as the server when it is no replica."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Times are Unix seconds and seconds; None where the request did not come so far. '' where there is nothing to say."""

    id: str
    at: float
    """When it ended."""
    client: str
    key: str
    tenant: str
    endpoint: str
    """`namespace/name`."""
    member: str
    server: str
    """Of the replica: what HAProxy calls it."""
    method: str
    path: str
    status: int | None
    code: str
    outcome: str
    tries: int
    """How often it was tried again on a replica."""
    bytes_in: int
    bytes_out: int
    queue_s: float | None
    first_byte_s: float | None
    total_s: float
    held: str
    """What the slow path had to do with it: cold, body, models, console; '' for most."""
    line: Mapping[str, Any] = dataclasses.field(repr=False, default_factory=dict)
    """All that the edge wrote."""

    @property
    def began(self) -> float:
        """When it came."""
        return self.at - self.total_s


def parse(line: bytes) -> Request | None:
    """One line; None when it is none (a write that was cut off)."""
    try:
        found = json.loads(line)
        ms = found["ms"]
        told = {name: "" if value == "-" else value for name, value in found.items() if isinstance(value, str)}
        path, _, member = told["endpoint"].partition(":")
        waits = [ms["request"], ms["queue"], ms["connect"], ms["response"]]
        # A request that was not answered has a status all the same: that of an answer to nobody.
        unheard = found["end"][:1] in "Cc" and ms["response"] < 0
        server = told["server"] or told.get("to", "")
        return Request(
            id=told["id"],
            at=found["time"] / 1000,
            client=told["client"],
            key=told["key"],
            tenant=told.get("tenant", ""),
            endpoint=path,
            member=member,
            server="" if server in NOBODY else server,
            method="" if told["method"].startswith("<") else told["method"],
            path=told["path"],
            status=None if unheard or found["status"] <= 0 else found["status"],
            code="" if unheard else told["code"],
            outcome=outcome(found["end"], found["status"]),
            tries=int(found.get("tries", 0)),
            bytes_in=found["bytes_in"],
            bytes_out=found["bytes_out"],
            queue_s=_seconds(ms["queue"]),
            first_byte_s=_seconds(sum(max(0, wait) for wait in waits)) if waits[-1] >= 0 else None,
            total_s=max(0, ms["active"]) / 1000,
            held=told["slow"],
            line=found,
        )
    except (ValueError, KeyError, TypeError):
        return None


def outcome(end: str, status: int) -> str:
    """How a request ended, from HAProxy's termination state: who ended it, and how far it had come."""
    who, state = end[:1] or "-", end[1:2]
    if who == "-":
        return "failed" if status >= 400 else "finished"
    if who in "LP":
        return "refused" if status >= 400 else "finished"
    if who == "C":
        return "client_left"
    if who == "c":
        return "client_timed_out"
    if who == "s":
        return "queue_timed_out" if state == "Q" else "unreachable" if state == "C" else "timed_out"
    if who == "S":
        return "unreachable" if state == "C" else "replica_broke"
    return "cut" if who in "KD" else "edge_failed"


def with_engine(edge: str, usage: messages.Usage | None) -> str:
    """What the edge saw, corrected by what the engine says: a stream may end well on the wire and badly in the engine, and a websocket
    ends in one way on the wire, whoever leaves it in the middle."""
    if edge != "finished" or usage is None:
        return edge
    if usage.outcome == "failed":
        return "engine_failed"
    return "client_left" if usage.outcome == "aborted" and usage.status == messages.SWITCHED else edge


def _seconds(milliseconds: float) -> float | None:
    return milliseconds / 1000 if milliseconds >= 0 else None
