"""Follows an endpoint until it has settled: phases as lines, downloads as a bar on a terminal and now and then a line in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cluster import errors
from cluster.cli import output
from cluster.cli.client import Client

SETTLED = frozenset({"running", "failed", "updateFailed", "paused", "scaledToZero"})
BROKEN = frozenset({"failed", "updateFailed"})
POLL_S = 0.5
LINE_EVERY_S = 5.0


class NotSettled(errors.MoorageError):
    """The endpoint did not get there in time."""

    code = "timeout"


class EndpointFailed(errors.MoorageError):
    """The endpoint failed."""

    code = "endpoint_failed"


class Teller:
    """Tells what is new in a status, and shows numbers of bytes as they grow. Closes with `with`."""

    def __init__(self, say: Callable[[str], None] = output.say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._last = ("", "")
        self._told_at = 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Teller:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, status: dict[str, Any]) -> None:
        """A line when state, phase or message are new; bytes otherwise."""
        words = " ".join(str(status[name]) for name in ("state", "phase") if status.get(name))
        message = str(status.get("message") or "")
        progress = status.get("progress") or {}
        numbered = bool(progress.get("total"))
        if (words, "" if numbered else message) != self._last:
            self._last = (words, "" if numbered else message)
            self._say(f"{words}: {message}" if message else words)
            self._told_at = self._clock()
        if numbered:
            self._tell_bytes(words, float(progress.get("bytes", 0)), float(progress["total"]))

    def _tell_bytes(self, words: str, count: float, total: float) -> None:
        if self._bar is not None:
            task = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task(words, total=total)
            self._bar.update(task, description=words, completed=count, total=total)
        elif self._clock() - self._told_at >= LINE_EVERY_S:
            self._told_at = self._clock()
            self._say(f"{words}: {output.size(count)} of {output.size(total)}")


def until_settled(
    api: Client,
    name: str,
    timeout_s: float,
    *,
    wanted: str | None = None,
    teller: Teller | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The endpoint once it has come to `wanted`, or to any state it stays in. Raises EndpointFailed, NotSettled."""
    deadline = clock() + timeout_s
    with teller or Teller() as tell:
        while True:
            endpoint: dict[str, Any] = api.call("GET", api.path(name))
            status = endpoint["status"]
            tell.tell(status)
            if status["state"] == wanted or (wanted is None and status["state"] in SETTLED):
                return _checked(name, endpoint, wanted)
            if wanted is not None and status["state"] in BROKEN:
                return _checked(name, endpoint, wanted)
            if clock() > deadline:
                raise NotSettled(f"{name} is still {status['state']} after {timeout_s:g} s: {status.get('message') or 'no message'}")
            sleep(POLL_S)


def _checked(name: str, endpoint: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    status = endpoint["status"]
    if status["state"] in BROKEN and status["state"] != wanted:
        reason = f" ({status['reason']})" if status.get("reason") else ""
        raise EndpointFailed(f"{name} is {status['state']}{reason}: {status.get('message') or 'see `moorage endpoints logs`'}")
    return endpoint
