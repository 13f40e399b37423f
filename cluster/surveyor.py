"""Facts of models, looked up on a node and kept for a while. Whoever needs them inside a transaction asks for what is known."""

from __future__ import annotations

import collections
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster import errors
from cluster import spec as specs
from cluster.model_facts import Facts

Look = Callable[[Mapping[str, Any], Mapping[str, str], float], Facts]
"""(Model.wire() without secrets, secret values, seconds at most) -> the facts. Raises Unavailable."""
FRESH_S = 120.0
"""A branch may move, a bucket may change: so long facts count as true. Commits do not change, yet permissions do."""
KEPT = 200
UNREACHABLE = "SourceUnreachable"


def nowhere(model: Mapping[str, Any], secrets: Mapping[str, str], wait_s: float) -> Facts:  # noqa: ARG001 - the port's signature
    """The Look of who has no cluster to look from: nothing is ever known."""
    raise errors.Unavailable("There is nowhere to look at models from.")


class Surveyor:
    """Thread-safe."""

    def __init__(self, look: Look, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[str, tuple[float, Facts]] = collections.OrderedDict()

    def facts(self, model: specs.Model, secrets: Mapping[str, str], wait_s: float) -> Facts:
        """Looks, unless that was done a moment ago with an answer. Waits at most `wait_s`; what cannot be read is told in the facts'
        problem."""
        known = self.known(model, secrets)
        if known is not None and known.problem != UNREACHABLE:
            return known
        wire = _question(model)
        try:
            found = self._look(wire, secrets, wait_s)
        except errors.MoorageError as exc:
            found = Facts(model.repository, model.revision, problem=UNREACHABLE, message=exc.message)
        with self._lock:
            self._kept[_key(wire, secrets)] = (self._clock(), found)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def known(self, model: specs.Model, secrets: Mapping[str, str]) -> Facts | None:
        """What was found a moment ago, without looking."""
        with self._lock:
            at, found = self._kept.get(_key(_question(model), secrets), (0.0, None))
        return found if found is not None and self._clock() - at < FRESH_S else None


def _question(model: specs.Model) -> dict[str, Any]:
    """What the answer depends on."""
    wire = model.wire()
    return {name: wire[name] for name in ("repository", "revision", "env", "settings", "args") if name in wire}


def _key(wire: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([wire, sorted(secrets.items())], sort_keys=True).encode()).hexdigest()
