"""What vLLM loads inside the servers that replicas start (VLLM_PLUGINS=moorage; entry points in pyproject.toml).

Its hooks: child processes die with their parent, engine steps and counts go to the guard's stats, what each request uses goes
to its account (`deployments.vllm_usage`), and answers carry the model name that was asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from argparse import Namespace
from contextvars import ContextVar
from typing import Any

import aiohttp
import jinja2

# Importing the guard takes the secrets out of the environment, before vLLM starts processes that would inherit them.
from cluster import routes
from deployments import (
    adapter_names,
    cache_salts,
    engine_stats,
    engine_words,
    guard,
    lifeline,
    nap,
    public_hosts,
    template_limit,
    usage,
    vllm_api,
    vllm_usage,
)
from deployments.dialects import responses

SPANS_NODES = "MOORAGE_PLACEMENT_GROUP"
WAITING: dict[int, int] = {}
"""Requests not begun, by engine index (several with data parallelism), as of the last step of each."""
ASKED_MODEL: ContextVar[str | None] = ContextVar("asked_model", default=None)


def die_with_parent() -> None:
    """General plugin, run in every process of the server: engine core and workers outlive an API server that is killed, otherwise.

    Also the place where an engine that spans nodes takes over the replica's claim on them.
    """
    # Before the server warms itself up by the chat template.
    jinja2.Template.render = template_limit.Limit().bounded(jinja2.Template.render)  # type: ignore[method-assign]
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        lifeline.end_with_parent(parent.pid)
    if SPANS_NODES in os.environ:
        from deployments import ray_executor  # noqa: PLC0415 - Ray takes a second to import, and few servers need it

        ray_executor.adopt(os.environ)


class StatLogger(vllm_api.stat_logger_base()):  # type: ignore[misc]  # known at run time only
    """Stat logger plugin: notes that the engine moved, and what waits."""

    def __init__(self, _vllm_config: Any, engine_index: int = 0) -> None:
        self._engine = engine_index

    def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
        """Called at every step of the engine."""
        engine_stats.CURRENT.stepped_at = time.monotonic()
        if scheduler_stats is not None:
            WAITING[self._engine] = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs

    def log_engine_initialized(self) -> None:
        """Nothing to do."""


class Plugin:
    """Endpoint plugin: no routes, only a place to hook in."""

    def __init__(self) -> None:
        self._app: Any = None

    name = "moorage"
    required_tasks = None

    def attach_router(self, app: Any) -> None:
        """No routes: the application that has them is remembered, and learns to refuse odd bodies."""
        self._app = app
        for kind in engine_words.OF_ODD_BODIES:
            app.add_exception_handler(kind, engine_words.refuse_odd_body)

    async def init_state(self, engine_client: Any, state: Any, _args: Namespace) -> None:
        """Connects the engine to the guard's stats, and makes answers carry the model name that was asked for."""
        config = engine_client.vllm_config
        processor = engine_client.output_processor
        stats = engine_stats.CURRENT
        # What the API server has not finished is exact at any time; the scheduler's own count is stale after an abort.
        stats.unfinished = processor.get_num_unfinished_requests
        stats.waiting = lambda: sum(WAITING.values())
        stats.tasks = tuple(await engine_client.get_supported_tasks())
        stats.max_concurrency = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        stats.nap = nap.Nap(lambda: engine_client.sleep(1), engine_client.wake_up)  # level 1: weights wait in the node's memory
        stats.labels = dict(getattr(config.model_config.hf_config, "id2label", None) or {})
        vllm_api.fetch_media_with(aiohttp.ClientSession(connector=public_hosts.PublicConnector()))
        vllm_usage.Requests(processor, cache_salts.maker(guard.FROM_ENVIRONMENT.edge))
        vllm_api.refuse_contradictions(_contradictory)
        cache_salts.drop_those_of_clients()
        stats.routes = _told(self._app)
        stats.connected = True
        keeping = getattr(state, "openai_serving_responses", None)
        if keeping is not None:
            keeping.background_tasks = vllm_usage.Background()
            keeping.msg_store, keeping.event_store = responses.Kept(2 * responses.MOST_KEPT), responses.Kept(2 * responses.MOST_KEPT)
            keeping.response_store = responses.Kept(beside=(keeping.msg_store, keeping.event_store))
        models = getattr(state, "openai_serving_models", None)
        if models is not None:
            _answer_with_asked_name(models)


def _contradictory() -> bool:
    account = usage.ACCOUNT.get()
    return account is not None and account.contradictory


def endpoint_plugin() -> Plugin:
    """The entry point's factory."""
    return Plugin()


class Loaded(dict[str, Any]):
    """vLLM's table of loaded adapters, which also finds them as `endpoint:adapter`."""

    def __contains__(self, name: object) -> bool:
        """Whether the adapter is loaded."""
        return isinstance(name, str) and super().__contains__(adapter_names.CURRENT.bare(name))

    def __getitem__(self, name: str) -> Any:
        """Its LoRARequest."""
        return super().__getitem__(adapter_names.CURRENT.bare(name))


def _told(app: Any) -> tuple[str, ...]:
    """Those of the engine's routes that exist from outside."""
    outside = {(method, to) for asked, to in routes.ALLOWED.items() for method in [asked.split(":")[0]]}
    found = {(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()}
    return tuple(f"{method} {path}" for method, path in sorted(found & outside, key=lambda item: item[1]))


def _answer_with_asked_name(models: Any) -> None:
    """Any name that is and was no adapter's means the base model; what was asked for comes back in the answer."""
    served_name, show = models.model_name, models.show_available_models
    names = adapter_names.CURRENT

    def is_base_model(name: str) -> bool:
        if adapter_names.managed():
            return False
        ASKED_MODEL.set(name)
        account = usage.ACCOUNT.get()
        if account is not None:
            account.model = name
        return names.adapter_of(name) is None

    def model_name(lora_request: Any = None) -> str:
        return ASKED_MODEL.get() or str(lora_request.lora_name if lora_request is not None else served_name())

    async def show_available_models() -> Any:
        listed = await show()
        for card in listed.data:
            if card.parent is not None:
                card.id = f"{names.name}:{card.id}"
            card.root = card.id  # vLLM's is a path of this node
        return listed

    models.lora_requests = Loaded(models.lora_requests)
    models.is_base_model = is_base_model
    models.model_name = model_name
    models.show_available_models = show_available_models
