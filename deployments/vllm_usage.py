"""What each request uses of vLLM, by vLLM's own counts, and the salt of its prefixes in the cache.

One HTTP request may be many of the engine's: several prompts, `n`, each step of each beam. Each is a part of the account that is
open where it is made. Attaches to the output processor, where every request of every route begins and ends.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Any

from deployments import usage

BEAM = re.compile(r"(.*)-[0-9a-f]+-beam-\d+")
"""Ids of a beam search's requests, which begin alike for one prompt."""
ENGINE_FAILED = "ERROR"
"""vLLM's FinishReason of a request that the engine gave up."""
MARK = "moorage_account"
"""Attribute of vLLM's RequestState: the account that it is part of."""
NARROW = "moorage_narrow"
"""Attribute of vLLM's RequestState: whether structured output and forbidden tokens may leave nothing to write."""
NEEDED = (
    *("add_request", "abort_requests", "process_outputs", "propagate_error"),
    *("_finish_request", "_update_stats_from_finished", "request_states"),
)
"""What is used of vLLM's OutputProcessor."""


class Requests:
    """Those that the engine has, by its own ids."""

    def __init__(self, processor: Any, salt: Callable[[usage.Account | None], str]) -> None:
        """Raises RuntimeError for a vLLM that is made otherwise: nothing would be counted."""
        missing = [name for name in NEEDED if not hasattr(processor, name)]
        if missing or not processor.log_stats:
            raise RuntimeError(f"usage cannot be counted in this vLLM: {', '.join(missing) or 'its statistics are switched off'}")
        self._states: MutableMapping[str, Any] = processor.request_states
        self._salt = salt
        self._parts: dict[str, _Part] = {}
        processor.add_request = self._on_add(processor.add_request)
        processor.abort_requests = self._on_abort(processor.abort_requests)
        processor.process_outputs = self._on_outputs(processor.process_outputs)
        processor.propagate_error = self._on_error(processor.propagate_error)
        processor._finish_request = self._on_finish(processor._finish_request)
        processor._update_stats_from_finished = self._on_reason(processor._update_stats_from_finished)

    def _on_add(self, add: Callable[..., None]) -> Callable[..., None]:
        def add_request(request: Any, prompt: Any, parent_req: Any = None, request_index: int = 0, queue: Any = None) -> None:
            account = usage.ACCOUNT.get()
            request.cache_salt = self._salt(account)  # the engine core gets this very object afterwards
            add(request, prompt, parent_req, request_index, queue)
            identity = request.request_id
            state = self._states.get(identity)  # none where this was only the end of a request that is fed bit by bit
            if account is not None and not account.closed and state is not None and identity not in self._parts:
                self._parts[identity] = _Part(account, state, timed=not request.resumable)
                setattr(state, NARROW, _narrow(request.sampling_params))

        return add_request

    def _on_abort(self, abort: Callable[..., list[str]]) -> Callable[..., list[str]]:
        def abort_requests(request_ids: Iterable[str], internal: bool) -> list[str]:
            aborted = abort(request_ids, internal)
            for identity in aborted:
                self._end(identity, cut=True)
            return aborted

        return abort_requests

    def _on_outputs(self, process: Callable[..., Any]) -> Callable[..., Any]:
        def process_outputs(engine_core_outputs: Sequence[Any], *args: Any, **options: Any) -> Any:
            """One step of the engine: what it made is counted at once, should the server be killed before the request ends."""
            found = process(engine_core_outputs, *args, **options)
            for output in engine_core_outputs:
                part = self._parts.get(output.request_id)
                if part is not None:
                    part.step()
            return found

        return process_outputs

    def _on_error(self, propagate: Callable[[Exception], None]) -> Callable[[Exception], None]:
        def propagate_error(error: Exception) -> None:
            """The engine is dead."""
            propagate(error)
            for identity in list(self._parts):
                self._parts[identity].account.broken = True
                self._end(identity)

        return propagate_error

    def _on_finish(self, finish: Callable[[Any], None]) -> Callable[[Any], None]:
        def finish_request(state: Any) -> None:
            finish(state)
            self._end(state.request_id)

        return finish_request

    def _on_reason(self, update: Callable[..., None]) -> Callable[..., None]:
        def update_stats_from_finished(state: Any, reason: Any, stats: Any) -> None:
            """Called right after the request is finished, before its answer's last part can be sent."""
            account = getattr(state, MARK, None)
            if account is not None and reason.name == ENGINE_FAILED:
                account.broken = True
                account.contradictory = getattr(state, NARROW, False)
            update(state, reason, stats)

        return update_stats_from_finished

    def _end(self, identity: str, *, cut: bool = False) -> None:
        part = self._parts.pop(identity, None)
        if part is not None:
            part.account.left = part.account.left or cut
            part.end()


class _Part:
    """One request of the engine. `state` is vLLM's RequestState of it. It is not `timed` where it is fed bit by bit: the engine's
    times are then those of the last bit, which came when the client chose."""

    def __init__(self, account: usage.Account, state: Any, *, timed: bool) -> None:
        self.account = account
        self._state = state
        self._timed = timed
        self._prompts: bool | None = None
        """Whether its prompt is this part's to count; None before it has been read."""
        self._prompt = self._cached = self._made = 0
        """What has been counted of its tokens."""
        setattr(state, MARK, account)
        account.hold()
        account.parts.add(self)

    def end(self) -> None:
        """It has ended."""
        if self in self.account.parts:
            self.account.parts.remove(self)
            self.count()
        self.account.release()

    def count(self) -> None:
        """See usage.Part. A prompt that is part of several counts once."""
        self.step()
        stats = self._state.stats
        if self._timed and stats.first_token_ts and stats.num_generation_tokens:
            self._time()

    def step(self) -> None:
        """Adds what has been used since it was last called. The prompt of what is fed bit by bit grows."""
        account, state, made = self.account, self._state, self._state.stats.num_generation_tokens
        account.completion_tokens += made - self._made
        self._made = made
        if account.broken and state.is_prefilling:
            return  # the engine died before it had read the prompt: nobody got anything for it
        if self._prompts is None:
            self._prompts = account.first(_prompt_of(state))
            if state.lora_name:
                account.adapter = state.lora_name
        if self._prompts and state.prompt_len != self._prompt:
            cached = min(state.num_cached_tokens, state.prompt_len)
            account.prompt_tokens += state.prompt_len - self._prompt
            account.cached_tokens += cached - self._cached
            self._prompt, self._cached = state.prompt_len, cached

    def _time(self) -> None:
        """When the first of the account's parts began, and had its first token."""
        account, stats = self.account, self._state.stats
        first = max(0.0, stats.arrival_time + stats.first_token_latency - account.started_at)
        if not account.first_token_s or first < account.first_token_s:
            account.first_token_s = first
            account.queue_s = max(0.0, stats.scheduled_ts - stats.queued_ts)


def _narrow(sampling: Any) -> bool:
    """Whether a request's structure and the tokens that it forbids may exclude each other. Nobody knows before it is tried: vLLM
    ends such a request when the grammar refuses the token that was drawn from none."""
    forbids = sampling is not None and (sampling.allowed_token_ids or sampling.bad_words or sampling.min_tokens)
    return bool(forbids and sampling.structured_outputs is not None)


def _prompt_of(state: Any) -> str:
    """What names the prompt among those of its account."""
    if state.parent_req is not None:
        return str(state.parent_req.request_id)
    found = BEAM.fullmatch(state.external_req_id)
    return found[1] if found else str(state.request_id)


class Background(dict[str, Any]):
    """vLLM's table of responses that are made after their request has been answered: each holds its account open until its end."""

    def __setitem__(self, identity: str, task: asyncio.Task[None]) -> None:
        super().__setitem__(identity, task)
        account = usage.ACCOUNT.get()
        if account is not None:
            account.hold()
            task.add_done_callback(lambda _: account.release())
