"""The Ray processes of this machine that belong to this platform: started by `ray start`, found again, ended by process id.

Several platforms can live on one machine: each has its own folder, ports and token, and every process carries the
platform's mark in its environment. `ray stop` is never used, since it ends every Ray of the machine. This module does not
import Ray, it runs its command; what runs on the cluster is left to `cluster.bootstrap`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import errors, home, processes
from cluster.settings import Settings

MARK = "MOORAGE_PLATFORM"
"""Environment variable that every process of a platform carries; its value tells platforms apart."""
START_LIMIT_S = 180.0
SESSIONS_KEPT = 3
NOT_FOR_RAY = ("MOORAGE_TOKEN", "MOORAGE_URL", "RAY_ADDRESS", "RAY_AUTH_TOKEN")
"""What a person's shell may hold and the platform's processes must not."""


class HeadFailed(errors.MoorageError):
    """Ray did not start."""

    code = "head_failed"


class PortTaken(errors.MoorageError):
    """A port that the platform needs is taken by another program."""

    code = "port_taken"


@dataclasses.dataclass(frozen=True)
class Head:
    """A Ray head that was started here: where it is, the ports that go with it, and its two indispensable processes."""

    address: str
    session: str
    port: int
    serve_port: int
    dashboard_port: int
    host: str
    gcs: processes.Process
    raylet: processes.Process

    def runs(self) -> bool:
        """Whether both processes are alive."""
        return processes.alive(self.gcs) and processes.alive(self.raylet)

    def applied(self, settings: Settings) -> Settings:
        """The settings with what is in force since the head was started."""
        ports = {"port": self.port, "serve_port": self.serve_port, "dashboard_port": self.dashboard_port}
        return settings.model_copy(update={**ports, "host": self.host, "ray_port": int(self.address.rpartition(":")[2])})


def without_client_server(parameters: Any, head: bool) -> None:  # noqa: ARG001 - Ray calls it with both
    """Ray's start hook: `ray start` always opens Ray Client's port, which Moorage does not use."""
    parameters.ray_client_server_port = None


def environment(settings: Settings, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Ray's processes and the bootstrap are started with: the caller's environment, every setting, the token's path."""
    place = home.of(settings)
    root = str(Path(__file__).resolve().parent.parent)
    found = {name: value for name, value in base.items() if name not in NOT_FOR_RAY}
    for name, value in settings.model_dump(exclude_none=True).items():
        found[f"MOORAGE_{name.upper()}"] = str(value)
    if settings.address is None:  # somebody else's cluster has a token of its own, which the caller's environment names
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place.ray_token)}
    return found | {
        MARK: place.mark,
        "MOORAGE_HOME": str(place.folder),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, base.get("PYTHONPATH", "")])),
        "RAY_START_HOOK": f"{__name__}.{without_client_server.__name__}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": base.get("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1"),
        # Serve's controller looks at every application so often: hundreds would keep it busy. Starts take a little longer.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": base.get("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.25"),
        # Each of Serve's replicas would wake ten times a second to hand on numbers that nobody reads more often than this.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": base.get("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "5000"),
        # Else engines, gateways and the manager would come after everything else on the machine.
        "RAY_worker_niceness": base.get("RAY_worker_niceness", "0"),
        # A worker that is started ahead (RayServe.spare) has imported what a replica needs when it is given one.
        "RAY_preload_python_modules": base.get(
            "RAY_preload_python_modules", "ray.serve._private.replica,deployments.replica,gateway.deployment"
        ),
        # Without its control store a node manager ends everything after this long: time for a person to notice, instead of a minute.
        "RAY_gcs_rpc_server_reconnect_timeout_s": base.get("RAY_gcs_rpc_server_reconnect_timeout_s", "600"),
        # Ray's workers write their title over their environment otherwise, and with it over the mark.
        "SPT_NOENV": "1",
    }


def recorded(place: home.Home) -> Head | None:
    """The head started last, running or not."""
    try:
        found = json.loads(_record(place).read_text())
        gcs, raylet = (processes.Process(**found.pop(name)) for name in ("gcs", "raylet"))
        return Head(**found, gcs=gcs, raylet=raylet)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running(place: home.Home) -> Head | None:
    """The head of this platform, when both of its processes are alive."""
    head = recorded(place)
    return head if head is not None and head.runs() else None


def members(place: home.Home) -> list[processes.Process]:
    """Every process of this platform on this machine."""
    return processes.marked(MARK, place.mark)


def choose_ports(settings: Settings, last: Head | None) -> Settings:
    """Ports for a new head. The usual ones for the usual home or where they were set, else the last ones, else free ones."""
    if home.is_default(settings):
        return settings
    chosen = {}
    for name in ("serve_port", "dashboard_port"):
        if name in settings.model_fields_set:
            continue
        before: int | None = getattr(last, name, None)
        chosen[name] = before if before and is_free(before) else free_port()
    if "ray_port" not in settings.model_fields_set:
        chosen["ray_port"] = 0
    return settings.model_copy(update=chosen)


def start_head(settings: Settings) -> Head:
    """Start a head with these settings and record it. Raises PortTaken and HeadFailed; leaves nothing behind when it fails."""
    place = home.of(settings)
    for name, port in (("RAY_PORT", settings.ray_port), ("DASHBOARD_PORT", settings.dashboard_port), ("SERVE_PORT", settings.serve_port)):
        if port and not is_free(port):
            raise PortTaken(f"Port {port} is taken by another program: end it, or choose another with MOORAGE_{name}.")
    temp = home.make_ray_temp(settings)
    _prune_sessions(temp)
    _drop_ruined(temp / "ray_current_cluster")
    _ray(["start", *head_arguments(settings, temp)], settings)
    head = _look(settings, temp)
    if head is None:
        end_all(place)
        raise HeadFailed(f"Ray ended right after it had started. {tail(place.logs / 'ray.log')}")
    home.write_private(_record(place), json.dumps(dataclasses.asdict(head), indent=2))
    return head


def head_arguments(settings: Settings, temp: Path) -> list[str]:
    """Arguments of `ray start` for a head. Port 0 lets Ray take a free one."""
    arguments = ["--head", f"--port={settings.ray_port}", f"--node-ip-address={settings.node_address}"]
    arguments += ["--dashboard-host=127.0.0.1", f"--dashboard-port={settings.dashboard_port}", "--dashboard-agent-listen-port=0"]
    if not home.is_default(settings):
        arguments += ["--min-worker-port=0", "--max-worker-port=0"]
    return [*arguments, *_node_arguments(settings, temp)]


def join(settings: Settings, address: str) -> None:
    """Make this machine a worker node of the cluster at `address` (host:port). Raises HeadFailed."""
    arguments = [f"--address={address}", "--dashboard-agent-listen-port=0"]
    if "node_address" in settings.model_fields_set:
        arguments.append(f"--node-ip-address={settings.node_address}")
    _ray(["start", *arguments, *_node_arguments(settings, home.make_ray_temp(settings))], settings)


def end_all(place: home.Home) -> None:
    """End every process of this platform, Ray's node manager first so that it can end its workers. Raises HeadFailed."""
    processes.end([process for process in members(place) if "/raylet/raylet " in process.title], grace_s=8.0)
    left: list[processes.Process] = []
    for _ in range(3):  # a process that was just being started is seen in the next round
        left = processes.end(members(place), grace_s=3.0)
        if not members(place):
            return
    raise HeadFailed("These processes would not end: " + ", ".join(f"{process.pid} ({process.title[:60]})" for process in left))


def end_leftovers(place: home.Home) -> int:
    """End what a crash has left of this platform, except HAProxy, which the new gateway takes over. Returns how many."""
    left = [process for process in members(place) if not is_haproxy(process)]
    processes.end(left, grace_s=2.0)
    return len(left)


def is_haproxy(process: processes.Process) -> bool:
    """Whether it is the edge, by the first word of its command line."""
    return process.title.split(" ", 1)[0].endswith("haproxy")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port on all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _node_arguments(settings: Settings, temp: Path) -> list[str]:
    """What head and workers have in common."""
    arguments = [f"--temp-dir={temp}", "--disable-usage-stats", "--include-log-monitor=False"]
    if settings.num_cpus is not None:
        arguments.append(f"--num-cpus={settings.num_cpus}")
    if settings.num_gpus is not None:
        arguments.append(f"--num-gpus={settings.num_gpus}")
    return arguments


def _ray(arguments: list[str], settings: Settings) -> None:
    """Run Ray's command in a session of its own, so that a terminal's Ctrl-C never reaches the daemons it leaves."""
    place = home.of(settings)
    with (place.logs / "ray.log").open("w") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "ray.scripts.scripts", *arguments, "--log-style=record", "--log-color=false"],
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=START_LIMIT_S,
                start_new_session=True,
                umask=0o077,
                check=False,
            )
            failed = done.returncode != 0
        except subprocess.TimeoutExpired:
            failed = True
    if failed:
        end_all(place)
        raise HeadFailed(f"`ray {arguments[0]}` failed. {tail(place.logs / 'ray.log')}")


def _look(settings: Settings, temp: Path) -> Head | None:
    """The head that was just started, from the files and processes it has made."""
    session = (temp / "session_latest").resolve()
    found = {}
    for process in members(home.of(settings)):
        match = re.search(r"/(gcs_server|raylet/raylet) ", process.title)
        if match and str(session) in process.title:
            found[match[1]] = dataclasses.replace(process, title=match[1].rpartition("/")[2])
    if len(found) != 2:
        return None
    return Head(
        address=(temp / "ray_current_cluster").read_text().strip(),
        session=str(session),
        port=settings.port,
        serve_port=settings.serve_port,
        dashboard_port=settings.dashboard_port,
        host=settings.host,
        gcs=found["gcs_server"],
        raylet=found["raylet/raylet"],
    )


def _record(place: home.Home) -> Path:
    return place.run / "ray.json"


def _prune_sessions(temp: Path) -> None:
    """Logs of earlier sessions are kept for a while; everything older goes."""
    sessions = sorted(temp.glob("session_2*"))
    for old in sessions[: max(0, len(sessions) - SESSIONS_KEPT)]:
        shutil.rmtree(old, ignore_errors=True)


def _drop_ruined(record: Path) -> None:
    """What a power cut has made of Ray's note of the last head: `ray start` would read it and end with a traceback."""
    try:
        record.read_text()
    except UnicodeDecodeError:
        record.unlink()
    except OSError:
        pass


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, with its path."""
    try:
        text = "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return f"See {log}."
    return f"The end of {log}:\n{text}"
