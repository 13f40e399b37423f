"""Everything that Moorage imports of vLLM, and nothing else: the one place to look at when vLLM changes.

Each function imports what it needs, since vLLM takes seconds to import and most processes need none or little of it.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""`python -m SERVER ...` is vLLM's API server. `vllm serve` is not used: the CPU wheel lacks the package metadata that it wants."""

CONTRADICTION = (
    "No token is left that could be written next: the structured output that was asked for"
    " and allowed_token_ids, bad_words or min_tokens exclude each other."
)
UNIPROC_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Saves a process on the CPU, whose platform would turn the short name `uni` into `mp`."""

OF_EVERY_SERVER = (
    SERVER,
    "vllm.entrypoints.launchers.cli_args",
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.structured_output",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.models.qwen3",
    "vllm.tool_parsers",
    "vllm.reasoning",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.configuration_llama",
    "transformers.tokenization_utils_fast",
    "fastapi.openapi.utils",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.lifespan.on",
    "uvloop",
)
OF_CPU_SERVERS = ("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner", "vllm.v1.attention.backends.cpu_attn")
OF_GPU_SERVERS = ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner")


def fetch_media_with(client: Any) -> None:
    """Media of requests are fetched with this aiohttp session from now on, and in no other way."""
    from vllm.connections import global_http_connection  # noqa: PLC0415

    global_http_connection._async_client = client
    global_http_connection._sync_client = _NoClient()  # requests resolves names by itself


def refuse_contradictions(contradictory: Callable[[], bool]) -> None:
    """Has the API server answer 400 where it would answer 500, when the engine gave up a request that `contradictory` is true of."""
    from vllm.entrypoints.generate.base.serving import GenerateBaseServing  # noqa: PLC0415
    from vllm.exceptions import VLLMValidationError  # noqa: PLC0415

    raise_if_error = GenerateBaseServing._raise_if_error

    def refuse(serving: Any, finish_reason: str | None, request_id: str) -> None:
        if finish_reason == "error" and contradictory():
            raise VLLMValidationError(CONTRADICTION)
        raise_if_error(serving, finish_reason, request_id)

    GenerateBaseServing._raise_if_error = refuse


class _NoClient:
    def get(self, *_: Any, **__: Any) -> Any:
        raise ValueError("media are not fetched in this way")


def preload() -> list[str]:
    """Imports what API server, engine core and worker need; returns what could not be imported, which costs time and nothing else."""
    from vllm.platforms import current_platform  # noqa: PLC0415

    missing = []
    for name in (*OF_EVERY_SERVER, *(OF_CPU_SERVERS if current_platform.is_cpu() else OF_GPU_SERVERS)):
        try:
            importlib.import_module(name)
        except Exception as exc:  # noqa: BLE001 - whatever a library raises at import, the server will meet or not
            missing.append(f"{name}: {exc!r}")
    return missing


def accelerator_touched() -> bool:
    """Whether this process has initialised an accelerator, after which no fork of it can use one."""
    import torch  # noqa: PLC0415

    return bool(torch.cuda.is_initialized() or (hasattr(torch, "xpu") and torch.xpu.is_initialized()))


def serve_in_fork(threads: int | None) -> None:
    """Runs the API server in a fork of a process that has called `preload`. `sys.argv` holds its arguments.

    Its own children are forked too where vLLM would start them afresh; a process that has initialised an accelerator goes on
    starting them afresh.
    """
    import torch  # noqa: PLC0415
    from vllm.model_executor.models import registry  # noqa: PLC0415

    get_context: Any = multiprocessing.get_context

    def forking(method: str | None = None) -> Any:
        return get_context(method if accelerator_touched() else "fork")

    multiprocessing.get_context = forking
    if hasattr(registry, "_run_in_subprocess"):  # where vLLM looks at a model's class, once for each: 20 s in a fresh interpreter
        registry._run_in_subprocess = run_in_fork
    if threads is not None:
        torch.set_num_threads(threads)  # libgomp has read OMP_NUM_THREADS long ago
    importlib.import_module(SERVER).main()


def run_in_fork(function: Callable[[], T]) -> T:
    """What `function` returns, computed in a fork of this process, which therefore stays untouched. Raises RuntimeError."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as stream:
                pickle.dump(function(), stream)
            code = 0
        finally:  # nothing of this process may run on in a fork
            if code:
                traceback.print_exc()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        found = stream.read()
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("The model's class could not be looked at: see above.")
    value: T = pickle.loads(found)  # noqa: S301 - from our own fork
    return value


def argument_parser() -> argparse.ArgumentParser:
    """The API server's."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    parser: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    return parser


def version() -> str:
    """Without the local part."""
    import vllm  # noqa: PLC0415

    return str(vllm.__version__).partition("+")[0]


def stat_logger_base() -> type:
    """The base class of stat logger plugins."""
    from vllm.v1.metrics.loggers import StatLoggerBase  # noqa: PLC0415

    found: type = StatLoggerBase
    return found


def architectures() -> tuple[dict[str, set[str]], dict[str, str]]:
    """What this vLLM can load: architecture -> what it can be run for; and what it once could: architecture -> last version."""
    from vllm.model_executor.models import registry  # noqa: PLC0415

    kinds = {
        "generate": (registry._TEXT_GENERATION_MODELS, registry._MULTIMODAL_MODELS),
        "embed": (registry._EMBEDDING_MODELS, registry._LATE_INTERACTION_MODELS),
        "reward": (registry._REWARD_MODELS,),
        "token-classify": (registry._TOKEN_CLASSIFICATION_MODELS,),
        "classify": (registry._SEQUENCE_CLASSIFICATION_MODELS,),
        "multimodal": (registry._MULTIMODAL_MODELS,),
        "draft": (registry._SPECULATIVE_DECODING_MODELS,),
        "transformers": (registry._TRANSFORMERS_SUPPORTED_MODELS, registry._TRANSFORMERS_BACKEND_MODELS),
    }
    found: dict[str, set[str]] = {}
    for kind, tables in kinds.items():
        for table in tables:
            for name in table:
                found.setdefault(name, set()).add(kind)
    return found, dict(registry._PREVIOUSLY_SUPPORTED_MODELS)
