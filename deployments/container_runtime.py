"""The command lines of podman and docker, as pure as they can be: nothing here starts a container.

No secret stands in a word: variables go by name (`--env NAME`), their values in the environment of the command.
"""

from __future__ import annotations

import base64
import dataclasses
import fcntl
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

CANDIDATES = ("podman", "docker")
REPOSITORY = "/repository"
"""Where a container finds its model, as on Hugging Face."""
HUB = "docker.io"
HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com"})
ON_THIS_NODE = "localhost/"
"""Begins the names of images that were built on the node: no registry has them."""
REPLICAS_LABEL, FOLDER_LABEL = "moorage.replicas", "moorage.folder"
SHARED_MEMORY = "8g"
"""Bound of /dev/shm, which frameworks exchange tensors through; the runtimes' own 64 MB is too little for any."""
ITS_OWN = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|LANG|LC_.*|LD_.*|XDG_.*|DOCKER_.*|CONTAINERS?_.*|BUILDAH_.*|PODMAN_.*|.*_PROXY|SSL_CERT_.*|GO.*",
    re.IGNORECASE,
)
"""Variables that the runtime's own command would act upon: a container's go by a file."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """`words` begin every command line: the program and its global options."""

    words: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    """The operator's further words of `run`."""

    @property
    def is_docker(self) -> bool:
        """Docker's own way of things; everything else is taken for podman."""
        return Path(self.words[0]).name.startswith("docker")

    @property
    def on_host_network(self) -> bool:
        """Whether containers have the node's own network: then they are told which port to listen on."""
        return bool(re.search(r"(?:^|\s)--net(?:work)?[= ]host(?:\s|$)", " ".join(self.arguments)))


@dataclasses.dataclass(frozen=True)
class Container:
    """One container. `port` is the node's, on loopback; `inner_port` its own."""

    name: str
    image: str
    folder: Path
    port: int
    inner_port: int
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    model: str = ""
    devices: tuple[str, ...] = ()
    entrypoint: str = ""
    words: tuple[str, ...] = ()


def candidates(environment: Mapping[str, str]) -> list[Runtime]:
    """Those to try, in order. Raises ValueError where the operator's words cannot be split."""
    arguments = tuple(shlex.split(environment.get("MOORAGE_CONTAINER_ARGS", "")))
    named = tuple(shlex.split(environment.get("MOORAGE_CONTAINER_RUNTIME", "")))
    return [Runtime(words, arguments) for words in ([named] if named else [(name,) for name in CANDIDATES])]


def full_name(image: str) -> str:
    """`image` with its registry: podman asks nobody where a short name is, and docker means its hub."""
    first, slash, _ = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return image
    return f"{HUB}/{image}" if slash else f"{HUB}/library/{image}"


def is_registry_of(image: str, server: str) -> bool:
    """Whether `image` (its full name) comes from that registry, however it is written; '' is any."""
    host = server.partition("://")[2] or server
    host = host.partition("/")[0].lower()
    return not host or image.partition("/")[0].lower() == (HUB if host in HUB_NAMES else host)


def is_fixed(image: str) -> bool:
    """Whether a copy on the node will do: a digest, or a tag that is not meant to move."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@" in image or image.startswith(ON_THIS_NODE) or tag not in ("", "latest")


def pull(runtime: Runtime, image: str, authority: Path | None) -> tuple[str, ...]:
    """`authority` is a folder with config.json (see `write_authority`)."""
    if authority is None:
        return (*runtime.words, "pull", image)
    if runtime.is_docker:
        return (*runtime.words, "--config", str(authority), "pull", image)
    return (*runtime.words, "pull", "--authfile", str(authority / "config.json"), image)


def write_authority(folder: Path, image: str, username: str, password: str) -> Path:
    """A new folder, 0700, with the credentials of the image's registry in the form that both runtimes read."""
    authority = folder / "registry"
    authority.mkdir(mode=0o700, exist_ok=True)
    registry = image.partition("/")[0]
    known = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    names = [registry, "https://index.docker.io/v1/"] if registry == HUB else [registry]
    _write_private(authority / "config.json", json.dumps({"auths": dict.fromkeys(names, known)}))
    return authority


def run(runtime: Runtime, container: Container) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line, and the variables that it needs in its environment. Writes a file of variables where some cannot go so.

    Raises ValueError for a value that cannot be handed over.
    """
    words = [*runtime.words, "run", "--rm", "--name", container.name]
    words += ["--label", f"{REPLICAS_LABEL}={container.folder.parent}", "--label", f"{FOLDER_LABEL}={container.folder}"]
    words += ["--security-opt", "no-new-privileges", "--shm-size", SHARED_MEMORY]
    if not runtime.on_host_network:
        words += ["--publish", f"127.0.0.1:{container.port}:{container.inner_port}"]
    if container.model:
        words += ["--volume", f"{container.model}:{REPOSITORY}:ro"]
    words += devices(runtime, container.devices)
    told = {"PORT": str(container.port if runtime.on_host_network else container.inner_port)}
    if container.model:
        told |= {"MODEL_PATH": REPOSITORY, "HF_MODEL_DIR": REPOSITORY}
    environment = {**container.environment, **told}
    by_file = {name: value for name, value in environment.items() if ITS_OWN.fullmatch(name)}
    by_name = {name: value for name, value in environment.items() if name not in by_file}
    if by_file:
        words += ["--env-file", str(_environment_file(container.folder, by_file))]
    for name in sorted(by_name):
        words += ["--env", name]
    words += runtime.arguments
    if container.entrypoint:
        words += ["--entrypoint", container.entrypoint]
    return (*words, container.image, *container.words), by_name


def devices(runtime: Runtime, accelerators: Sequence[str]) -> list[str]:
    """The words that hand over GPUs by their numbers or UUIDs."""
    if not accelerators:
        return []
    if runtime.is_docker:
        return ["--gpus", f'"device={",".join(accelerators)}"']
    return [word for accelerator in accelerators for word in ("--device", f"nvidia.com/gpu={accelerator}")]


def of_replicas(runtime: Runtime, replicas: Path) -> tuple[str, ...]:
    """Lists the names of all containers of the replicas in this folder, whatever has become of them."""
    return (*runtime.words, "ps", "--all", "--filter", f"label={REPLICAS_LABEL}={replicas}", "--format", "{{.Names}}")


def folder_of(runtime: Runtime, name: str) -> tuple[str, ...]:
    """Tells the folder of the replica that a container is of."""
    return (*runtime.words, "inspect", "--type", "container", "--format", f'{{{{index .Config.Labels "{FOLDER_LABEL}"}}}}', name)


def is_orphan(folder: Path) -> bool:
    """Whether the replica of this folder is gone: nobody holds the folder (see deployments.node.Node.replica_folder)."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


REFUSED = re.compile(
    r"unauthorized|authentication required|denied|forbidden|incorrect username|invalid username|no basic auth|\b401\b|\b403\b",
    re.IGNORECASE,
)
MISSING = re.compile(
    r"manifest unknown|not found|name unknown|no such image|does not exist|image not known|\b404\b|repository name not known", re.IGNORECASE
)


def why_not_pulled(image: str, lines: Sequence[str]) -> str:
    """In the words that deployments.diagnosis knows, from what the runtime wrote."""
    text = "\n".join(lines)
    if REFUSED.search(text):
        return f"the registry refused {image}: there is no such image, or it needs other credentials"
    if MISSING.search(text):
        return f"image not found: {image}"
    return f"the image could not be pulled: {image}: {lines[-1].strip() if lines else 'no word why'}"


def _environment_file(folder: Path, variables: Mapping[str, str]) -> Path:
    broken = next((name for name, value in variables.items() if "\n" in value), None)
    if broken is not None:
        raise ValueError(f"the variable {broken} cannot have several lines in a container")
    return _write_private(folder / "environment", "".join(f"{name}={value}\n" for name, value in variables.items()))


def _write_private(path: Path, text: str) -> Path:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    return path
