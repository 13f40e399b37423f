"""Histories of concurrent commands on one endpoint, and whether some order of them explains every answer (linearizability)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class State:
    """What the model knows of an endpoint that exists."""

    generation: int
    paused: bool
    description: str


@dataclasses.dataclass(frozen=True)
class Operation:
    """One command. `outcome`: `ok`, an error's slug, or `unknown` when no answer told; it took effect, if at all, before `returned`."""

    kind: str
    invoked: float
    returned: float
    outcome: str
    description: str = ""
    expected: int | None = None
    """The generation given in If-Match."""
    seen: State | None = None
    """What the answer showed."""


def explained(operations: list[Operation]) -> bool:
    """Whether the operations, in some order that respects who ended before whom began, give these answers from nothing on."""
    rows = sorted(operations, key=lambda row: row.invoked)
    waiting: list[tuple[int, State | None]] = [(0, None)]
    known = set(waiting)
    while waiting:
        done, state = waiting.pop()
        done = _without_effect(rows, done, state)
        if done == (1 << len(rows)) - 1:
            return True
        for place in _next(rows, done):
            for after in steps(rows[place], state):
                reached = (done | 1 << place, after)
                if reached not in known:
                    known.add(reached)
                    waiting.append(reached)
    return False


def _without_effect(rows: list[Operation], done: int, state: State | None) -> int:
    """With all that may come next, changes nothing and is rightly answered here: to put it later is never needed."""
    while True:
        now = [place for place in _next(rows, done) if _only_shows(rows[place]) and state in steps(rows[place], state)]
        if not now:
            return done
        done |= sum(1 << place for place in now)


def _only_shows(row: Operation) -> bool:
    return row.kind == "get" or row.outcome not in ("ok", "unknown")


def _next(rows: list[Operation], done: int) -> Iterator[int]:
    """Those that no other one still to come ended before."""
    first_end = float("inf")
    for place, row in enumerate(rows):
        if done >> place & 1:
            continue
        if row.invoked > first_end:
            break
        first_end = min(first_end, row.returned)
    for place, row in enumerate(rows):
        if row.invoked > first_end:
            return
        if not done >> place & 1:
            yield place


def steps(row: Operation, state: State | None) -> Iterator[State | None]:
    """The states that the operation may lead to from `state`; none when its answer cannot be given there."""
    if row.outcome == "unknown":
        yield state
        yield from (after for after, _ in _effects(row, state))
    elif row.outcome == "ok":
        yield from (after for after, shown in _effects(row, state) if row.seen is None or row.seen == shown)
    elif _refused(row, state):
        yield state


def _effects(row: Operation, state: State | None) -> Iterator[tuple[State | None, State | None]]:
    """(state afterwards, what the answer shows) where the operation succeeds."""
    if row.kind == "create":
        if state is None:
            made = State(1, False, row.description)
            yield made, made
        return
    if state is None or row.expected not in (None, state.generation):
        return
    newer = dataclasses.replace(state, generation=state.generation + 1)
    if row.kind == "get":
        yield state, state
    elif row.kind == "update":
        changed = dataclasses.replace(newer, description=row.description)
        yield changed, changed
    elif row.kind == "pause":
        paused = dataclasses.replace(newer, paused=True)
        yield paused, paused
        if state.paused:
            yield state, state
    elif row.kind == "resume":
        # Of two that saw it paused at the same time both succeed.
        running = dataclasses.replace(newer, paused=False)
        yield running, running
    elif row.kind == "delete":
        yield None, None


def _refused(row: Operation, state: State | None) -> bool:
    if row.outcome == "not_found":
        return state is None
    if row.outcome == "already_exists":
        return row.kind == "create" and state is not None
    if row.outcome == "stale_generation":
        return state is not None and row.expected != state.generation
    if row.outcome == "already_running":
        return row.kind == "resume" and state is not None and not state.paused
    return False
