"""What a replica knows of the node it runs on: folders, address, and which of the node's environment an engine may see."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, cast

from cluster import spec
from deployments.engine import Launch
from deployments.locking import locked

LauncherUse = Literal["auto", "on", "off"]
"""Whether engines are forked from the node's launcher: `auto` = those that use no accelerator."""

INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TERM|VIRTUAL_ENV|PYTHON.*|LD_LIBRARY_PATH|XDG_.*|SSL_CERT_.*|CC|CXX"
    r"|DOCKER_HOST|CONTAINER_HOST|CONTAINERS_(?:REGISTRIES_|STORAGE_)?CONF|MOORAGE_CONTAINER_(?:RUNTIME|ARGS)|MOORAGE_ECHO_TALLY|CUDA_.*|NVIDIA_.*|NCCL_.*|GLOO_.*|HIP_.*|ROCR_.*|ROCM_.*|VLLM_.*|TORCH.*|PYTORCH_.*|TRITON_.*|OMP_.*|MKL_.*|FLASHINFER_.*"
)
SOURCE_CREDENTIALS = re.compile(r"HF_TOKEN|AWS_.*")
HUB_ADDRESS = re.compile(r"(?:MOORAGE_)?HF_ENDPOINT")
STORE_ADDRESS = re.compile(r"AWS_ENDPOINT_URL.*")
STORE_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


@dataclasses.dataclass(frozen=True)
class Node:
    """Settings of this node (the MOORAGE_* variables of the same meaning)."""

    home: Path
    address: str = "127.0.0.1"
    model_paths: tuple[Path, ...] = ()
    hub_endpoint: str | None = None
    media_hosts: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    launcher: LauncherUse = "auto"
    ray: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """See deployments.ray_executor."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Node:
        """Reads MOORAGE_HOME, _NODE_ADDRESS, _MODEL_PATHS, _MODEL_STORE, _HF_ENDPOINT, _MEDIA_HOSTS and _LAUNCHER."""
        return cls(
            home=Path(environment.get("MOORAGE_HOME") or Path.home() / ".moorage").expanduser().absolute(),
            address=environment.get("MOORAGE_NODE_ADDRESS") or "127.0.0.1",
            model_paths=_model_paths(environment.get("MOORAGE_MODEL_PATHS", ""), environment.get("MOORAGE_MODEL_STORE", "")),
            hub_endpoint=environment.get("MOORAGE_HF_ENDPOINT") or None,
            media_hosts=tuple(host.strip() for host in environment.get("MOORAGE_MEDIA_HOSTS", "").split(",") if host.strip()),
            environment=dict(environment),
            launcher=cast("LauncherUse", environment.get("MOORAGE_LAUNCHER") or "auto"),
        )

    @property
    def models(self) -> Path:
        """Model cache, shared by the replicas of this node."""
        return self.home / "models"

    @property
    def cache(self) -> Path:
        """What engines compile and want to find again."""
        return self.home / "cache"

    @property
    def usage(self) -> Path:
        """Usage records that the manager has not taken yet."""
        return self.home / "usage"

    @property
    def launchers(self) -> Path:
        """Sockets and logs of this node's launchers."""
        return self.home / "launchers"

    def server_environment(self) -> dict[str, str]:
        """What of the node's environment a server inherits: what programs need to run, none of the platform's secrets."""
        kept = {name: value for name, value in self.environment.items() if INHERITED.fullmatch(name)}
        root = str(Path(__file__).resolve().parent.parent)
        paths = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and path != root]
        return {**kept, "PYTHONPATH": os.pathsep.join([root, *paths]), "PYTHONUNBUFFERED": "1"}

    def forks(self, launch: Launch, placement: spec.Placement) -> bool:
        """Whether such a server is to be forked from the node's launcher."""
        return bool(launch.forked_by) and (self.launcher == "on" or (self.launcher == "auto" and placement.gpus == 0))

    def source_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """What a model's source is asked with: the operator's credentials, and over them the endpoint's `own` variables.

        The operator's are sent nowhere but where the operator says: an endpoint that names an address of a Hub or store, even an
        empty one, has to have credentials of its own there. Nor are the two mixed into one.
        """
        withheld = "|".join(
            (
                *(["HF_TOKEN"] if any(map(HUB_ADDRESS.fullmatch, own)) else []),
                *(["AWS_.*"] if any(map(STORE_ADDRESS.fullmatch, own)) else []),
                *(STORE_KEYS if STORE_KEYS & own.keys() else []),
            )
        )
        kept = {name: value for name, value in self.environment.items() if SOURCE_CREDENTIALS.fullmatch(name)}
        return {name: value for name, value in kept.items() if not re.fullmatch(withheld, name)} | dict(own)

    @contextlib.contextmanager
    def replica_folder(self, name: str) -> Iterator[Path]:
        """A new folder of the replica's own, 0700, removed at the end. Folders that killed replicas left behind go too."""
        parent = self.home / "replicas"
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent):  # nobody may sweep a folder that is made but not yet locked
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix=re.sub(r"[^A-Za-z0-9_-]", "_", name) + "-", dir=parent))
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def reserve_port(host: str) -> socket.socket:
    """A free port of `host`, held by a socket that is bound but does not listen.

    The kernel gives the port to nobody else while the socket is open, yet a server that sets SO_REUSEADDR can listen on it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return held


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):  # held by a living replica
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _model_paths(listed: str, store: str) -> tuple[Path, ...]:
    """The folders that the operator listed, and the one that `moorage models push` uploads to, where that is a folder."""
    folders = [*listed.split(":"), store if store.startswith("/") else ""]
    return tuple(Path(path).expanduser() for path in folders if path)
