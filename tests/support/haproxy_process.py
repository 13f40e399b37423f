"""What the HAProxy of a test's edge uses: memory and open files of its worker process."""

from __future__ import annotations

import os
from pathlib import Path


def worker(world) -> Path:
    """/proc of the newest worker below the master."""
    master = world.edge._haproxy.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return Path("/proc") / max(children, key=int)


def resident_bytes(world) -> int:
    """Memory that the worker has in RAM."""
    return int((worker(world) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(world) -> int:
    """Descriptors that the worker has open."""
    return len(os.listdir(worker(world) / "fd"))
