"""The edge's settings, where its files lie, and HAProxy's configuration made from both.

The configuration holds what never changes while HAProxy runs; endpoints, keys and servers are programmed into it
(`gateway.program`) and are static lines only for the moment of a reload.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from cluster import http_errors, routes
from gateway import access, blocks, refusals

SOCKET_PATH_LIMIT = 90
"""Unix socket paths end at 108 bytes, and HAProxy appends a suffix of its own while it binds."""
BODY_BUFFER = 49152
"""HAProxy's buffer; bodies up to half of it are read at the edge, larger ones are looked into by the slow path."""


@dataclasses.dataclass(frozen=True)
class EdgeConfig:
    """Where the edge listens and what it allows. Times are in seconds, sizes in bytes."""

    home: Path
    port: int
    host: str = "0.0.0.0"  # noqa: S104 - the edge is meant to be reached
    serve_port: int = 8001
    """Ray Serve's HTTP proxy on loopback: gets /manage."""
    name: str = "edge"
    """Names this gateway in its activity reports."""
    slots: int = 1024
    threads: int = 0
    """HAProxy's threads; 0 = one per CPU."""
    max_connections: int = 8000
    retry_connections: int = 2000
    """With more clients than this connected, a request that breaks before its answer has begun is not tried on another replica:
    HAProxy keeps a buffer of 48 KiB for each that may be, until its answer has ended."""
    body_limit: int = 100 * 2**20
    header_limit: int = 16384
    url_limit: int = 8000
    held_bytes: int = 512 * 2**20
    """Request bodies that the slow path may have in memory at once."""
    header_timeout: int = 10
    body_timeout: int = 10
    """For the body that is read before the request is routed."""
    client_timeout: int = 60
    """For a client that stops in the middle of a large body, or stops reading; waiting for the engine does not count."""
    server_timeout: int = 3600
    """Silence, not length: a stream may last as long as it says something this often."""
    queue_timeout: int = 60
    """How long a request waits for a free place on a replica."""
    drain_limit: int = 4 * 3600
    """A server that left the snapshot is cut off after this, whatever still runs on it."""
    report_every: float = 1.0
    """Period of activity reports to the manager."""
    log_bytes: int = 64 * 2**20
    """Size at which the access log is rotated (three old ones are kept)."""

    @property
    def files(self) -> EdgeFiles:
        """Where the edge's files lie."""
        return EdgeFiles(self.home)

    @property
    def connections(self) -> int:
        """`max_connections`, or what this process's limit of open files allows (two per request, and some for checks)."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(self.max_connections, max(100, (hard - 2000) // 2)) if hard != resource.RLIM_INFINITY else self.max_connections


class EdgeFiles:
    """Paths below <home>/edge; sockets move to the temporary folder when that path is too long for them."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "edge"
        self.maps = self.folder / "maps"
        self.logs = home / "logs"
        self.sockets = self.folder
        if len(os.fsencode(self.folder / "master.sock")) > SOCKET_PATH_LIMIT:
            mark = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
            self.sockets = Path(tempfile.gettempdir()) / f"moorage-{os.getuid()}-{mark}"
        self.configuration = self.folder / "haproxy.cfg"
        self.pid = self.folder / "haproxy.pid"
        self.output = self.logs / "haproxy.log"
        self.access_log = self.logs / "access.log"
        self.secret = self.folder / "secret"
        self.snapshot = self.folder / "snapshot.json"
        self.lock = self.folder / "lock"
        self.master = self.sockets / "master.sock"
        self.worker = self.sockets / "worker.sock"
        self.inner = self.sockets / "inner.sock"
        self.slow = self.sockets / "slow.sock"
        self.ring = self.sockets / "ring.sock"

    def map(self, name: str) -> Path:
        """The file of a map; also what HAProxy calls that map."""
        return self.maps / f"{name}.map"

    def make(self) -> None:
        """Creates the folders, closed to others. Raises PermissionError when another user's folder is in the sockets' place."""
        for folder in (self.folder, self.maps, self.logs, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.sockets.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.sockets} belongs to another user")
        self.sockets.chmod(0o700)


SAID = {
    "key_concurrency": "This key may have {most} requests at the same time.",
    "key_rate": "This key may make {most} requests a minute.",
    "endpoint_concurrency": "This endpoint takes {most} requests at the same time, of all keys together.",
    "endpoint_rate": "This endpoint takes {most} requests a minute, of all keys together.",
    "key_tokens": blocks.TOKENS_SAID.replace("{who}", "This key"),
    "key_budget": blocks.BUDGET_SAID.replace("{who}", "This key"),
    "endpoint_tokens": blocks.TOKENS_SAID.replace("{who}", "This endpoint"),
    "endpoint_budget": blocks.BUDGET_SAID.replace("{who}", "This endpoint"),
    "viewer": access.VIEWERS_CALL_PUBLIC,
}
"""What refusals say; words in brackets are filled in by HAProxy."""


def slot_names(count: int) -> list[str]:
    """The empty backends that endpoints are assigned to."""
    return [f"s{number:05d}" for number in range(count)]


def render(config: EdgeConfig, secret: str, slots: int, servers: Mapping[str, Sequence[str]]) -> str:
    """HAProxy's configuration with `slots` backends; `servers` (slot -> server lines) is empty except for a reload."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("haproxy.cfg.j2").render(
        config=config,
        files=config.files,
        secret=secret,
        slots=slot_names(slots),
        servers=servers,
        mark=f"{fingerprint(config)} slots {slots}",
        buffer=BODY_BUFFER,
        readable=BODY_BUFFER // 2,
        refuse=refusals.answer,
        builtin=refusals.builtin,
        shapes=refusals.shapes,
        routes=routes,
        said=SAID,
    )


def fingerprint(config: EdgeConfig) -> str:
    """Changes when a running HAProxy must be reloaded to follow this configuration or this version of Moorage."""
    template = (Path(__file__).parent / "templates" / "haproxy.cfg.j2").read_bytes()
    words = b"".join(Path(str(module.__file__)).read_bytes() for module in (refusals, routes, http_errors, access, blocks))
    return hashlib.sha256(template + words + repr(config).encode()).hexdigest()[:16]
