"""Which environment variables an endpoint may set for its engine (`model.env` and `model.secrets`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cluster import errors

DENIED = re.compile(
    r"PATH|HOME|USER|SHELL|TMPDIR|IFS|BASH_ENV|ENV|LD_.*|PYTHON.*|MOORAGE_.*|RAY_.*|GLIBC_.*|MALLOC_.*"
    r"|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES"
    r"|HF_HOME|HF_HUB_.*|HF_ENDPOINT|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE|TRANSFORMERS_OFFLINE|XDG_.*"
    r"|VLLM_PLUGINS|VLLM_SERVER_DEV_MODE|VLLM_ALLOW_RUNTIME_LORA_UPDATING|VLLM_ALLOW_INSECURE_SERIALIZATION|VLLM_API_KEY|VLLM_PORT"
    r"|VLLM_CACHE_ROOT|VLLM_CONFIG_ROOT|VLLM_ASSETS_CACHE.*|VLLM_RPC_BASE_PATH|VLLM_HOST_IP|VLLM_LOGGING_CONFIG_PATH|VLLM_USE_MODELSCOPE"
    r"|VLLM_SKIP_MODEL_NAME_VALIDATION|VLLM_MEDIA_.*|VLLM_(?:TORCH_)?PROFILER_.*|VLLM_DEBUG_LOG_API_SERVER_RESPONSE|VLLM_RAY_.*"
    r"|TORCHINDUCTOR_.*|TORCH_EXTENSIONS_DIR|TRITON_CACHE_DIR|PROMETHEUS_MULTIPROC_DIR|.*_PROXY|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE",
    re.IGNORECASE,
)


OURS = re.compile(
    r"MOORAGE_.*|RAY_.*|PORT|MODEL_PATH|(?:CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES",
    re.IGNORECASE,
)
"""What a program of the user's may not be given either: it is what Moorage tells it."""


def check(names: Iterable[str], param: str = "model.env", *, program: bool = False) -> None:
    """Raises InvalidRequest for a variable that would change how the platform runs the engine, or what code it loads.

    A `program` of the user's own runs what it likes: only what Moorage says itself is denied.
    """
    pattern = OURS if program else DENIED
    denied = next((name for name in names if pattern.fullmatch(name)), None)
    if denied is not None:
        raise errors.InvalidRequest(f"{denied} cannot be set: it would change how the platform runs the engine", param=param)
