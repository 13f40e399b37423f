"""Every setting of a Moorage process, from `MOORAGE_*` variables. `moorage config` prints them with their source."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Defaults suit one machine; times are in seconds unless their name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="MOORAGE_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".moorage")
    """State: database, cluster secret, credentials, model cache, logs, HAProxy maps and sockets."""
    host: str = "0.0.0.0"  # noqa: S104 - the edge is meant to be reached
    """Address that the edge listens on."""
    port: int = 8000
    serve_port: int = 8001
    """Ray Serve's HTTP proxy, on loopback: carries only /manage."""
    dashboard_port: int = 8265
    ray_port: int = 6379
    node_address: str = "127.0.0.1"
    """Address of this node that engines listen on; loopback on a one-node cluster."""
    address: str | None = None
    """Ray cluster to join (`host:port`); None = start a head here."""
    num_cpus: int | None = None
    """CPUs that Ray may give to replicas; None = what the machine has."""
    num_gpus: int | None = None
    ray_temp: Path | None = None
    """Ray's session folder; None = <home>/ray."""

    database_url: str | None = None
    """SQLAlchemy URL; None = SQLite at <home>/moorage.db."""
    vault_key_file: Path | None = None
    """File with the keys that secret values are sealed under, the first one first; None = one derived from the cluster secret."""
    public_url: str | None = None
    """What `status.url` begins with; None = http://127.0.0.1:<port>."""
    hf_endpoint: str | None = None
    """A mirror of the Hugging Face Hub."""
    launcher: Literal["auto", "on", "off"] = "auto"
    """Whether vLLM servers are forked from one process per node that has imported vLLM already, and so start in seconds:
    `auto` = those that use no accelerator."""
    spare_workers: bool = True
    """Keep one idle worker of Ray (150 MB) on each node: what starts there, or is replaced, starts 3 s sooner."""
    model_paths: str = ""
    """Folders, separated by colons, that a `model.repository` path may lie in (the model cache always may)."""
    media_hosts: str = ""
    """Hosts, separated by commas, from which models may have the media that a request names by URL; empty = only data in the request."""
    allow_commands: bool = False
    """Whether endpoints may be commands (`model.image.command`): these run any program on the nodes, as the platform's user."""
    allow_containers: bool = True
    """Whether endpoints may be container images (`model.image.custom`), on nodes that have podman or docker."""
    container_runtime: str = ""
    """The words that begin its command line, `podman --storage-driver=vfs` for example; empty = podman or docker, whichever works."""
    container_args: str = ""
    """Further words of its `run` for every container, `--network=host` for example."""
    model_store: str = ""
    """Where `moorage models push` uploads to: s3://bucket/prefix, or a folder that every node can read."""
    instance_types: Path | None = None
    """YAML file of the operator's instance types; None = <home>/instance-types.yaml, if there is one."""
    private_networks: str = ""
    """Networks (CIDR, separated by commas) from which private endpoints may be called; empty = any."""
    currency: str = Field("USD", pattern=r"^[^\x00-\x1f]{1,12}$")
    """The word that stands beside prices and costs; nothing is converted."""
    usage_days: int = Field(35, ge=1)
    """Days that single requests are kept for `usage` and limits; their daily sums are kept for ever."""

    grafana_url: str | None = None
    """Grafana as browsers reach it; endpoints link to their dashboard there, which `moorage grafana install` puts in place."""
    grafana_token_file: Path | None = None
    """File with the token of a Grafana service account (role Admin), for `moorage grafana install`."""

    tick_s: float = 1.0
    """Period of the reconciler; changes and announcements start a pass at once."""
    hold_timeout_s: float = 300.0
    """How long a request waits for an endpoint that is starting, when it does not say X-Scale-Up-Timeout."""
    max_queue: int = 1000
    """Requests that may wait at one gateway for one endpoint, starting or busy, where the endpoint does not say."""
    drain_timeout_s: float = 120.0
    """How long a replica that is to stop may go on with the requests it has."""
    load_timeout_s: float = 1800.0
    body_limit_mb: int = 100
    slots: int = 1024
    """Empty HAProxy backends that endpoints are assigned to; doubled by one hitless reload when they run out."""
    retry_connections: int = 2000
    """With more clients than this connected, requests that break before their answer has begun are not tried on another replica:
    each that may be costs the edge 48 KiB until its answer has ended."""

    request_log_days: float = 30.0
    """How long the request log is kept."""
    request_log_mb: int = 4096
    """How much of it is kept: beyond that the oldest hours go."""
    log_days: float = 30.0
    """How long what engines wrote is kept, as far as each replica's files have room for it."""

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'moorage.db'}"

    @property
    def url(self) -> str:
        """What users' URLs begin with, without a trailing slash."""
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def model_cache(self) -> Path:
        """Downloaded models, shared by the replicas of this node."""
        return self.home / "models"
