"""GPUs by NVIDIA's management library. The one module that imports it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from cluster import messages

T = TypeVar("T")


class Nvml:
    """The real one: NVIDIA's management library. Once it cannot be had, or has failed, there are no GPUs."""

    def __init__(self, indices: tuple[str, ...], library: Any = pynvml) -> None:
        """`indices` as in CUDA_VISIBLE_DEVICES: numbers or UUIDs. `library` is the module pynvml, or a twin of it."""
        self._library = library
        self._handles: list[tuple[str, Any]] = []
        if not indices:
            return
        with contextlib.suppress(library.NVMLError):
            library.nvmlInit()
            for index in indices:
                with contextlib.suppress(library.NVMLError):
                    self._handles.append((index, self._handle(index)))

    def read(self) -> tuple[messages.Gpu, ...]:
        """One look at each."""
        return tuple(self._gpu(index, handle) for index, handle in self._handles)

    def _handle(self, index: str) -> Any:
        return self._library.nvmlDeviceGetHandleByIndex(int(index)) if index.isdigit() else self._library.nvmlDeviceGetHandleByUUID(index)

    def _gpu(self, index: str, handle: Any) -> messages.Gpu:
        library = self._library
        memory = self._ask(library.nvmlDeviceGetMemoryInfo, handle)
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._ask(library.nvmlDeviceGetPowerUsage, handle)
        celsius = self._ask(library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU)
        name = self._ask(library.nvmlDeviceGetName, handle) or ""
        return messages.Gpu(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name),
            utilization=rates.gpu / 100 if rates is not None else None,
            memory_used=int(memory.used) if memory is not None else None,
            memory_total=int(memory.total) if memory is not None else None,
            temperature=float(celsius) if celsius is not None else None,
            power=milliwatts / 1000 if milliwatts is not None else None,
        )

    def _ask(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """None where this GPU, or the part of it that we have (MIG), does not say."""
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None
