"""What a replica's server uses of its node: CPU and memory of all its processes, and the GPUs that Ray gave it.

A look takes milliseconds and is made in a thread. Without NVML (no GPU, no driver) there are no GPUs in what is found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import psutil

from cluster import messages

PSS_EVERY_S = 60.0
"""The kernel walks all pages of a process for its proportional share: milliseconds for each gigabyte."""
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


class Gpus(Protocol):
    """What reads GPUs."""

    def read(self) -> tuple[messages.Gpu, ...]:
        """One look at each of a replica's."""
        ...


class NoGpus:
    """Of a replica without GPUs."""

    def read(self) -> tuple[messages.Gpu, ...]:
        """None."""
        return ()


def gpus_of(environment: Mapping[str, str], count: float) -> Gpus:
    """What reads the GPUs of this node that Ray gave to a replica which claims `count`."""
    indices = assigned_gpus(environment, count)
    if not indices:
        return NoGpus()
    from deployments import nvml  # noqa: PLC0415 - its library takes 0.2 s to import, and few replicas on CPUs would have that to spare

    return nvml.Nvml(indices)


@dataclasses.dataclass
class _Seen:
    cpu_s: Mapping[tuple[int, float], float]
    """(pid, start) -> seconds of CPU until then."""
    at: float


class HardwareMeter:
    """Looks at one server again and again. Not thread-safe: one look at a time."""

    def __init__(self, leader: int, cpus_claimed: float, gpus: Gpus, clock: Callable[[], float] = time.monotonic) -> None:
        """`leader` is the server's first process (`ServerProcess.pid`): all others descend from it."""
        self._leader = leader
        self._claimed = cpus_claimed
        self._gpus = gpus
        self._clock = clock
        self._before: _Seen | None = None
        self._pss: int | None = None
        self._pss_at: float | None = None

    def look(self, at: float) -> messages.HardwareUse | None:
        """What is used now; `at` in Unix seconds. None when the server is gone."""
        now = self._clock()
        cpu, rss, pids = {}, 0, []
        for process in _tree(self._leader):
            with contextlib.suppress(*GONE), process.oneshot():
                times = process.cpu_times()
                cpu[process.pid, process.create_time()] = times.user + times.system
                rss += process.memory_info().rss
                pids.append(process.pid)
        if not pids:
            return None
        if self._pss_at is None or now - self._pss_at >= PSS_EVERY_S:
            self._pss, self._pss_at = _pss(pids), now
        busy, self._before = self._busy(cpu, now), _Seen(cpu, now)
        return messages.HardwareUse(at, busy, self._claimed, rss, self._pss, self._gpus.read())

    def _busy(self, cpu: Mapping[tuple[int, float], float], now: float) -> float | None:
        """CPUs kept busy since the last look; what a process did that is gone by now is not known."""
        if self._before is None or now <= self._before.at:
            return None
        spent = sum(max(0.0, seconds - self._before.cpu_s.get(key, 0.0)) for key, seconds in cpu.items())
        return round(spent / (now - self._before.at), 3)


def assigned_gpus(environment: Mapping[str, str], count: float) -> tuple[str, ...]:
    """Those of this node that Ray gave to a replica which claims `count`."""
    named = environment.get("CUDA_VISIBLE_DEVICES", "") if count else ""
    return tuple(word for word in (part.strip() for part in named.split(",")) if re.fullmatch(r"[0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+", word))


def _tree(leader: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(*GONE):
        first = psutil.Process(leader)
        yield from (first, *first.children(recursive=True))


def _pss(pids: list[int]) -> int | None:
    """Memory of these processes, what n processes share counted 1/n for each; None where the kernel does not tell."""
    total, found = 0, False
    for pid in pids:
        with contextlib.suppress(OSError):
            match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            if match:
                total, found = total + int(match[1]) * 1024, True
    return total if found else None
