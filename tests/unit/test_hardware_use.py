"""What a server's processes and GPUs use, and that nothing breaks where there is nothing to read."""

import os
import subprocess
import sys
import types

import pytest

from cluster import messages
from deployments import hardware_use, nvml

BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(60 << 20); print('up', flush=True); input()"], stdin=subprocess.PIPE)
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("done", flush=True)
input()
"""


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def server():
    """A process that has used 0.3 s of CPU and has a child with 60 MiB."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sorted(process.stdout.readline() for _ in range(2)) == ["done\n", "up\n"]
    yield process
    process.kill()
    process.communicate()


def test_all_processes_of_a_server_count(server):
    clock = Clock()
    meter = hardware_use.HardwareMeter(server.pid, 2, hardware_use.NoGpus(), clock)
    first = meter.look(7.0)
    assert (first.at, first.cpu_cores, first.cpus_claimed, first.gpus) == (7.0, None, 2, ())
    assert first.memory_rss > 60 << 20
    assert first.memory_pss is None or 60 << 20 < first.memory_pss <= first.memory_rss
    clock.now += 5
    assert 0 <= meter.look(12.0).cpu_cores < 1


def test_cpu_is_what_was_spent_since_the_last_look(server):
    clock = Clock()
    meter = hardware_use.HardwareMeter(server.pid, 1, hardware_use.NoGpus(), clock)
    meter.look(0.0)
    meter._before = hardware_use._Seen({}, clock.now)  # as if it had begun since
    clock.now += 0.5
    assert meter.look(1.0).cpu_cores >= 0.6


def test_a_server_that_is_gone_uses_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert hardware_use.HardwareMeter(process.pid, 1, hardware_use.NoGpus()).look(0.0) is None


def test_a_look_is_cheap(server):
    meter = hardware_use.HardwareMeter(server.pid, 1, hardware_use.NoGpus())
    meter.look(0.0)
    began = os.times()
    for _ in range(20):
        meter.look(0.0)
    ended = os.times()
    spent = (ended.user + ended.system - began.user - began.system) / 20
    assert spent < 0.05, f"{spent * 1000:.1f} ms of CPU, every five seconds"


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [
        ("0,3", 2, ("0", "3")),
        ("GPU-8f6d-11, 2", 2, ("GPU-8f6d-11", "2")),
        ("MIG-GPU-1/2/3", 1, ("MIG-GPU-1/2/3",)),
        ("0,1", 0, ()),
        ("", 1, ()),
        ("NoDevFiles", 1, ()),
    ],
)
def test_a_replica_has_the_gpus_that_ray_gave_it(visible, count, found):
    assert hardware_use.assigned_gpus({"CUDA_VISIBLE_DEVICES": visible}, count) == found


def test_a_replica_without_gpus_never_loads_nvml():
    assert isinstance(hardware_use.gpus_of({"CUDA_VISIBLE_DEVICES": "0"}, 0), hardware_use.NoGpus)
    assert isinstance(hardware_use.gpus_of({}, 1), hardware_use.NoGpus)


class Library:
    """A twin of the module pynvml on a node with two GPUs, of which the second says little."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, missing=False):
        self.missing = missing

    def nvmlInit(self):  # noqa: N802 - the library's names
        if self.missing:
            raise self.NVMLError

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index > 1:
            raise self.NVMLError
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return types.SimpleNamespace(used=10, total=40)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        self._only_first(handle)
        return types.SimpleNamespace(gpu=75, memory=5)

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        self._only_first(handle)
        return 420_500

    def nvmlDeviceGetTemperature(self, handle, kind):  # noqa: N802
        self._only_first(handle)
        return 51

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return b"NVIDIA H200" if handle == 0 else "NVIDIA H200"

    def _only_first(self, handle):
        if handle != 0:
            raise self.NVMLError


def test_gpus_tell_what_their_driver_tells():
    found = nvml.Nvml(("0", "1", "7", "GPU-abc"), Library()).read()
    assert found == (
        messages.Gpu("0", "NVIDIA H200", 0.75, 10, 40, 51.0, 420.5),
        messages.Gpu("1", "NVIDIA H200", None, 10, 40, None, None),
        messages.Gpu("GPU-abc", "NVIDIA H200", 0.75, 10, 40, 51.0, 420.5),
    )


def test_a_machine_without_the_library_or_its_driver_has_no_gpus():
    assert nvml.Nvml(("0",), Library(missing=True)).read() == ()
