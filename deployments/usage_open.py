"""Accounts that are still open, in memory that outlives the server: what it had counted when it was killed is known all the same.

`open` in the spool's folder is a file that the server maps: a slot for each open account with its counters and its texts. To write
into it is to write to memory; the kernel keeps that, however the process ends. Who finds the server dead reads what is left (`left`).
"""

from __future__ import annotations

import array
import json
import mmap
import os
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path
from typing import Any

NAME = "open"
SLOTS = 1024
"""Of a server. Accounts that find none free are counted like others, but for the death of their server."""
SLOT_BYTES, CELLS = 1024, 12
STATE, STATUS, PROMPT, COMPLETION, CACHED, IMAGES, STARTED, SEEN, WHO, WHAT = range(10)
"""Cells of a slot: its state, counters, microseconds of when it began and last counted, and the lengths of its two texts."""
WHO_AT, WHAT_AT = 96, 640
"""Where they lie: whose request it is, and what it asked for, which engines tell later."""
FREE, OPEN = 0, 1
ENDED = ("finished", "aborted", "failed")
"""Later states: it has ended so, and its record is being written."""
NOTHING = array.array("q", [0] * CELLS)


class Table:
    """The server's end."""

    def __init__(self, folder: Path, slots: int = SLOTS) -> None:
        """Raises OSError where there is no room: a file with holes would end the server when the disk is full."""
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, slots * SLOT_BYTES)
            self._bytes = memoryview(mmap.mmap(file, slots * SLOT_BYTES))
        finally:
            os.close(file)
        self._cells = self._bytes.cast("q")
        self._slots, self._made = slots, 0
        self._free: list[Slot] = []

    def take(self) -> Slot | None:
        """One for a new account; None where there is none left."""
        if self._free:
            return self._free.pop()
        if self._made == self._slots:
            return None
        at, self._made = self._made * SLOT_BYTES, self._made + 1
        return Slot(self._cells[at // 8 : at // 8 + CELLS], self._bytes[at : at + SLOT_BYTES], self._free.append)


class Slot:
    """Of one account. `cells` are its counters, to be written by the constants above."""

    __slots__ = ("_bytes", "_give_back", "cells")

    def __init__(self, cells: memoryview[int], memory: memoryview[int], give_back: Callable[[Slot], None]) -> None:
        self.cells = cells
        self._bytes = memory
        self._give_back = give_back

    def begin(self, identity: str, key: str, tenant: str, route: str, started_at: float) -> None:
        """From now on a death of the server leaves it."""
        self.cells[:] = NOTHING
        self.cells[STARTED] = self.cells[SEEN] = round(started_at * 1e6)
        self._write(WHO, WHO_AT, WHAT_AT, [identity, key, tenant, route], [identity, key, tenant, ""])
        self.cells[STATE] = OPEN if self.cells[WHO] else FREE

    def say(self, model: str, adapter: str) -> None:
        """What the request asked for."""
        self._write(WHAT, WHAT_AT, SLOT_BYTES, [model, adapter], ["", adapter])

    def end(self, outcome: str) -> None:
        """It has ended. `free` is to follow when its record is written."""
        if self.cells[STATE] == OPEN:
            self.cells[STATE] = OPEN + 1 + ENDED.index(outcome)

    def free(self) -> None:
        """Its record is written."""
        self.cells[STATE] = FREE
        self._give_back(self)

    def _write(self, cell: int, begin: int, end: int, *texts: list[str]) -> None:
        """The first of these texts that fits."""
        self.cells[cell] = 0
        for text in texts:
            data = f"[{','.join(map(_text, text))}]".encode()
            if len(data) <= end - begin:
                self._bytes[begin : begin + len(data)] = data
                self.cells[cell] = len(data)
                return


def left(folder: Path, now: Callable[[], float] = time.time) -> list[bytes]:
    """The records of what a dead server had open; none where it had no table.

    A request that ran is failed. One that had just ended may have a record of its own already, with the same id and beginning.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return []
    slots = (memoryview(data)[at : at + SLOT_BYTES] for at in range(0, len(data) - SLOT_BYTES + 1, SLOT_BYTES))
    records = (_record(slot, now()) for slot in slots)
    return [record for record in records if record is not None]


def _record(slot: memoryview[int], now: float) -> bytes | None:
    cells = slot[: CELLS * 8].cast("q")
    who = _texts(slot[WHO_AT:][: cells[WHO]], 4)
    if not OPEN <= cells[STATE] <= OPEN + len(ENDED) or who is None:
        return None
    identity, key, tenant, route = who
    model, adapter = _texts(slot[WHAT_AT:][: cells[WHAT]], 2) or ("", "")
    outcome = "failed" if cells[STATE] == OPEN else ENDED[cells[STATE] - OPEN - 1]
    started, ended = cells[STARTED] / 1e6, min(max(cells[SEEN], cells[STARTED]) / 1e6, now)
    record: dict[str, Any] = {"id": identity, "key": key, "tenant": tenant, "route": route}
    record |= {"model": model, "adapter": adapter, "outcome": outcome, "status": cells[STATUS]}
    record |= {"prompt_tokens": cells[PROMPT], "completion_tokens": cells[COMPLETION], "cached_tokens": cells[CACHED]}
    record |= {"images": cells[IMAGES], "started_at": started, "ended_at": ended, "total_s": max(0.0, ended - started)}
    return json.dumps(record).encode()


def _texts(data: memoryview[int], count: int) -> list[str] | None:
    """None when the server died while it wrote them."""
    try:
        found = json.loads(bytes(data))
    except ValueError:
        return None
    return found if isinstance(found, list) and len(found) == count and all(isinstance(text, str) for text in found) else None
