"""A private image registry, Debian's `docker-registry`, on loopback: nobody reads from it without a name and a password."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.containers import IMAGE, Podman
from support.platforms import until

USER, PASSWORD = "reader", "hush-of-the-registry"


@dataclasses.dataclass(frozen=True)
class Registry:
    """`image` is the full name of the test's image in it; `variables` let podman speak to it without TLS."""

    image: str
    variables: dict[str, str]


@contextlib.contextmanager
def private(folder: Path, podman: Podman) -> Iterator[Registry]:
    """A registry that has the image of `support.containers`. Skips where the server is not installed."""
    if not (shutil.which("docker-registry") and shutil.which("htpasswd")):
        pytest.skip("there is no image registry here: apt install docker-registry apache2-utils")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    passwords = subprocess.run(["htpasswd", "-nbB", USER, PASSWORD], capture_output=True, text=True, check=True).stdout
    (folder / "passwords").write_text(passwords)
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\nhttp: {{addr: '{address}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder / 'passwords'}}}}}\n"
    )
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    made = Registry(f"{address}/team/server:1", {"CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf")})
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        until(lambda: answers(address), 30, what="the registry answers")
        line = [*podman.words, "push", "--quiet", "--creds", f"{USER}:{PASSWORD}", IMAGE, made.image]
        subprocess.run(line, check=True, capture_output=True, timeout=120, env=os.environ | made.variables)
        yield made
    finally:
        server.terminate()
        server.wait(30)


def answers(address: str) -> bool:
    """Whether the registry asks who is there."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{address}/v2/").status_code == 401
    return False
