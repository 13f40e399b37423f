"""What replicas and gateways tell the manager, and what they get back: one typed message per hop.

These travel as arguments of Serve handle calls to the manager (`Manager.register`, `.report`, `.announce`, ...).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

CRASHED = "EngineCrashed"
"""Reason of a failed phase whose engine ended by itself after it had been ready."""


@dataclasses.dataclass(frozen=True)
class ReplicaIdentity:
    """Which replica speaks. `id` is Serve's unique replica id; `node` the Ray node id in hexadecimal."""

    application: str
    id: str
    node: str = ""
    host: str = "127.0.0.1"
    member: str = ""
    """Which of the endpoint's members it is; '' = it has none."""

    @property
    def label(self) -> str:
        """What people are shown: the id, after the member's name where there are members."""
        return f"{self.member}:{self.id}" if self.member else self.id


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that an endpoint wants: `cluster.spec.Adapter`."""

    name: str
    repository: str
    revision: str = ""
    integration: tuple[str, ...] = ()
    """Names of the integrations with which it is brought."""


@dataclasses.dataclass(frozen=True)
class Adapters:
    """What a replica is to have. `retired` are names that were adapters once: they never mean the base model."""

    wanted: tuple[Adapter, ...] = ()
    retired: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class AdapterState:
    """What became of an adapter in one replica. `reason` is a CamelCase slug on failure."""

    adapter: Adapter
    state: Literal["pending", "ready", "failed"]
    reason: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """The manager's answer to `register`: what may not lie in Serve's metadata."""

    engine_secret: str = dataclasses.field(repr=False)
    """Value of the X-Engine-Secret header that the edge will send."""
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Secret environment of the endpoint (HF_TOKEN, AWS_..., the user's own)."""
    adapters: Adapters = Adapters()
    credentials: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict, repr=False)
    """Variables of the integrations that the replica's model names, by kind: for its source, and for programs of the user's."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A step in a replica's life.

    `name`: downloading, starting, importing, loading, compiling, warming, smoke_test, adapters, ready, sleeping, awake, draining,
    failed; and of one adapter, named in `data`: adapter_ready, adapter_failed, adapter_removed.
    `at` is in Unix seconds.
    `reason` is a CamelCase slug on failure (GatedRepository, DiskFull, ...), `permanent` = trying again cannot help.
    `data` holds numbers worth showing: {"bytes": n, "total": n}; when ready {"seconds": s}, the seconds of each phase
    and {"measured": {...}}, what the engine said of its memory.
    """

    name: str
    at: float
    message: str = ""
    reason: str = ""
    permanent: bool = False
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    member: str = ""
    """Of the replica that is spoken of; filled in by the manager."""

    @property
    def sentence(self) -> str:
        """The message, with the member's name before it where there is one."""
        return f"Member {self.member}: {self.message}" if self.member else self.message


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU of a replica, as its driver reports it. Memory in bytes; None = the driver does not say."""

    index: str
    """As the replica was given it: a number, or a UUID."""
    name: str = ""
    utilization: float | None = None
    """0 to 1: the share of the last moments in which it computed."""
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""


@dataclasses.dataclass(frozen=True)
class HardwareUse:
    """What a replica's server uses of its node: all its processes together. Memory in bytes."""

    at: float
    """Unix seconds."""
    cpu_cores: float | None = None
    """CPUs kept busy since the last look, 1.5 = one and a half; None at the first look."""
    cpus_claimed: float = 0.0
    memory_rss: int = 0
    """Resident memory; what processes share counts for each of them."""
    memory_pss: int | None = None
    """The same, with what n processes share counted 1/n for each; looked at less often. None = not known."""
    gpus: tuple[Gpu, ...] = ()


@dataclasses.dataclass(frozen=True)
class Announcement:
    """The server of this replica is ready at host:port for `max_concurrency` requests at once; `routes` are those it has."""

    replica: ReplicaIdentity
    host: str
    port: int
    max_concurrency: int
    capabilities: tuple[str, ...] = ()
    """Tasks the engine supports: generate, embed, score, classify, ..."""
    load_seconds: float = 0.0
    asleep: bool = False
    """Its engine sleeps; the next request wakes it."""
    adapters: tuple[AdapterState, ...] = ()
    hardware: HardwareUse | None = None


@dataclasses.dataclass(frozen=True)
class LogLine:
    """One line of a server's output. `level` is debug, info, warning or error; `at` Unix seconds."""

    at: float
    level: str
    text: str


SWITCHED = 101
"""Status of a websocket."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one request used of an engine, however it ended. `id` is the edge's request id: counted once, however often it is told."""

    id: str
    key: str = ""
    """Key id; '' for a request without a key."""
    tenant: str = ""
    """Of the key; '' without one."""
    route: str = ""
    """The engine's own path."""
    model: str = ""
    """As the request named it."""
    adapter: str = ""
    outcome: Literal["finished", "aborted", "failed"] = "finished"
    """`aborted`: its client left, or was cut off; `failed`: the engine answered an error, or broke."""
    status: int = 200
    """HTTP status of the engine's answer; 0 = it had not begun."""
    started_at: float = 0.0
    ended_at: float = 0.0
    """Unix seconds."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's tokens, those that the prefix cache had."""
    images: int = 0
    queue_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    """Seconds at the engine: until it began, until the first token, and in all."""
    share_s: float = 0.0
    """Seconds of the replica that were this request's: while n requests ran at once, each had a 1/n of the time."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """Requests that were answered in the same way since the last report."""

    endpoint: str
    """ns/name."""
    replica: str
    """The replica's id; '' = the edge itself answered."""
    status: int
    """HTTP status; 0 = the client left before there was one."""
    count: int
    seconds: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """How long a replica's answers took, from the request's first byte to the answer's last: step of `cluster.histograms` -> requests."""
    seconds_sum: float = 0.0


@dataclasses.dataclass(frozen=True)
class PromptPolicy:
    """What a replica is to keep of requests: `cluster.spec.RequestLog`. The manager's answer to an announcement."""

    prompts: bool = False
    answers: bool = False
    redact: tuple[str, ...] = ()
    max_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What a client sent and got, with everything struck out that was to be. `id` is the edge's request id, `at` Unix seconds."""

    id: str
    at: float
    route: str = ""
    prompt: str = dataclasses.field(default="", repr=False)
    """JSON of the request's fields that have texts of the client, cut at the policy's bound."""
    answer: str | None = dataclasses.field(default=None, repr=False)
    """Text; None where it was not to be kept, or was no text."""
    truncated: bool = False


@dataclasses.dataclass(frozen=True)
class RequestLines:
    """Bytes of a gateway's access log, whole lines, as HAProxy wrote them.

    `segment` names the file that they are from, `first` is where in it they begin. Without `data` it is the question how far
    the manager has come with that file.
    """

    gateway: str
    segment: str
    first: int
    data: bytes = dataclasses.field(default=b"", repr=False)


@dataclasses.dataclass(frozen=True)
class Activity:
    """What a gateway saw since its last report.

    `requests`: ns/name -> (finished requests, Unix seconds of the last one). `active`: ns/name -> requests running,
    waiting or held now. `keys_used`: key id -> Unix seconds of its last accepted use.
    """

    gateway: str
    at: float
    requests: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    active: Mapping[str, int] = dataclasses.field(default_factory=dict)
    keys_used: Mapping[str, float] = dataclasses.field(default_factory=dict)
    version: int = 0
    """Of the snapshot that this gateway's HAProxy holds."""
    running: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    """ns/name -> replica id -> requests it is working on now; the others of `active` wait or are held."""
    answers: tuple[Answers, ...] = ()
