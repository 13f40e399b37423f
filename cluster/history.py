"""What the manager remembers of requests: the request log, which replica was which revision, and prompts where they are wanted.

Taken in here, asked for over `cluster.api.requests`. `sweep` is called now and then and deletes what is too old.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from cluster import log_store, messages, prompt_store, records, replica_book, request_log, request_search
from cluster.settings import Settings
from cluster.store.base import Store

log = logging.getLogger(__name__)

SWEEP_S = 600.0
MOST_DAYS = 365.0
"""The longest time to live of a prompt."""


class History:
    """Built once; `start` begins to sweep in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        logs: log_store.LogStore,
        clock: Callable[[], float],
        tokens: request_search.Tokens = request_search.NoTokens(),
    ) -> None:
        """`tokens` knows what engines counted of a request."""
        folder = settings.home / "logs" / "requests"
        days = settings.request_log_days
        self._store = store
        self._logs = logs
        self._log = request_log.RequestLog(folder, days, settings.request_log_mb, clock)
        self._stopped = threading.Event()
        self.tokens = tokens
        self.search = request_search.RequestSearch(folder)
        self.replicas = replica_book.ReplicaBook(folder / "replicas.jsonl", days, clock)
        self.prompts = prompt_store.PromptStore(settings.home / "logs" / "prompts", clock)
        self.logs: log_store.Logs = logs

    def start(self) -> None:
        """Sweeps now and every ten minutes."""
        threading.Thread(target=self._sweep_on, name="history", daemon=True).start()

    def stop(self) -> None:
        """The thread ends."""
        self._stopped.set()

    def lines(self, lines: messages.RequestLines) -> int:
        """A gateway's access log; returns how far its segment has arrived. Raises OSError."""
        return self._log.append(lines)

    def seen(self, replica: messages.ReplicaIdentity, endpoint: records.Endpoint, revision: int) -> messages.PromptPolicy:
        """A replica said that it lives; the answer is which prompts it is to keep. A full disk is no reason to fail its announcement."""
        try:
            self.replicas.note(replica.id, replica.label, endpoint.id, revision)
        except OSError as problem:
            log.warning("a replica could not be noted for the request log: %s", problem.strerror)
        return policy(endpoint)

    def keep_prompts(self, endpoint: records.Endpoint, prompts: Sequence[messages.Prompt]) -> None:
        """What a replica kept; dropped when the endpoint does not want it any more. Raises OSError."""
        if endpoint.parsed.request_log.prompts:
            self.prompts.add(endpoint.namespace, endpoint.name, prompts)

    def forget(self, namespace: str, name: str) -> None:
        """An endpoint was deleted: what its engines wrote and what its clients sent goes. Its requests stay in the log."""
        self.logs.forget(namespace, name)
        self.prompts.forget(namespace, name)

    def sweep(self) -> None:
        """Delete what is too old, of everything. What went wrong is logged."""
        for part in (self._sweep_prompts, self._log.sweep, self._logs.sweep, self.replicas.shorten):
            try:
                part()
            except Exception:  # one part never stops the others: what holds it up may stay for ever, and disks fill
                log.exception("old logs could not be deleted")

    def _sweep_prompts(self) -> None:
        self.prompts.sweep({(row.namespace, row.name): row.parsed.request_log.ttl_days for row in self._store.endpoints()})

    def _sweep_on(self) -> None:
        while True:
            self.sweep()
            if self._stopped.wait(SWEEP_S):
                return


def policy(endpoint: records.Endpoint) -> messages.PromptPolicy:
    """What the endpoint's replicas are to keep."""
    wanted = endpoint.parsed.request_log
    if not wanted.prompts:
        return messages.PromptPolicy()
    return messages.PromptPolicy(True, wanted.answers, wanted.redact, wanted.max_bytes)
