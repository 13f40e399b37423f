"""The folder of a platform ($MOORAGE_HOME): its layout, the secrets made on first use, the credentials, the lock of `up` and `down`.

Everything in it is closed to other users. What is in the database is left to `cluster.store`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import errors
from cluster.settings import Settings

RAY_TEMP_LIMIT = 43
"""Bytes of the path of Ray's folder: a unix socket's path has room for 107, and Ray appends up to 64."""


class HomeUnusable(errors.MoorageError):
    """The platform's folder cannot be used."""

    code = "home_unusable"


@dataclasses.dataclass(frozen=True)
class Credentials:
    """Who the `moorage` command is: written by `up`, read by every other command."""

    url: str
    token: str = dataclasses.field(repr=False)
    namespace: str


@dataclasses.dataclass(frozen=True)
class Home:
    """Paths below the platform's folder."""

    folder: Path

    @property
    def secret(self) -> Path:
        """The cluster's secret, from which the engines' secrets and the vault's key are derived."""
        return self.folder / "secret"

    @property
    def ray_token(self) -> Path:
        """What every Ray process of this cluster must show."""
        return self.folder / "ray-token"

    @property
    def credentials(self) -> Path:
        """Where the `moorage` command finds URL and key."""
        return self.folder / "credentials"

    @property
    def run(self) -> Path:
        """What is known about the running processes."""
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        """Logs of the platform itself."""
        return self.folder / "logs"

    @property
    def mark(self) -> str:
        """Tells the processes of this platform from those of another one on the machine."""
        return hashlib.sha256(os.fsencode(self.folder.absolute())).hexdigest()[:12]


def of(settings: Settings) -> Home:
    """The settings' folder, as an absolute path."""
    return Home(settings.home.expanduser().absolute())


def absolute(settings: Settings) -> Settings:
    """The settings with paths that mean the same from every working folder."""
    keys = settings.vault_key_file
    return settings.model_copy(update={"home": of(settings).folder, "vault_key_file": keys and keys.expanduser().absolute()})


def is_default(settings: Settings) -> bool:
    """Whether this is the one platform that a machine usually has, which may claim the well-known ports."""
    return of(settings).folder == (Path.home() / ".moorage").absolute()


def prepare(home: Home) -> None:
    """Make folders and secrets that are not there yet, and close what others could read. Raises HomeUnusable."""
    try:
        for folder in (home.folder, home.run, home.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        for file in (home.secret, home.ray_token):
            _keep_secret(file)
    except OSError as exc:
        raise HomeUnusable(f"{home.folder} cannot be used ({exc.strerror}): set MOORAGE_HOME to a folder of yours.") from exc


def ray_temp(settings: Settings) -> Path:
    """Ray's folder: in the platform's own, or in the machine's temporary one when that path is too long for sockets."""
    if settings.ray_temp is not None:
        return settings.ray_temp
    home = of(settings)
    inside = home.folder / "ray"
    if len(os.fsencode(inside)) <= RAY_TEMP_LIMIT:
        return inside
    return Path(tempfile.gettempdir()) / f"moorage-{os.getuid()}-{home.mark}" / "ray"


def make_ray_temp(settings: Settings) -> Path:
    """Ray's folder, closed to others. Raises HomeUnusable when another user's folder is in its place."""
    folder = ray_temp(settings)
    for part in (folder.parent, folder):
        if not part.exists():
            part.mkdir(mode=0o700, parents=True)
    if folder.stat().st_uid != os.getuid():
        raise HomeUnusable(f"{folder} belongs to another user: set MOORAGE_RAY_TEMP to a folder of yours.")
    return folder


def read_credentials(home: Home) -> Credentials | None:
    """What `up` wrote, or None when there is nothing usable."""
    try:
        found = json.loads(home.credentials.read_text())
        return Credentials(str(found["url"]), str(found["token"]), str(found["namespace"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_credentials(home: Home, credentials: Credentials) -> None:
    """Whole or not at all, readable by nobody else."""
    write_private(home.credentials, json.dumps(dataclasses.asdict(credentials), indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Held by `up` and `down`, so that two of them do not work at the same time; the second waits."""
    with (home.run / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _keep_secret(path: Path) -> None:
    """32 random bytes as hexadecimal, made once. Raises HomeUnusable on an empty file: a new one would not open what was sealed."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    elif not path.read_text().strip():
        raise HomeUnusable(f"{path} is empty: put it back from a backup, or delete it if nothing on this platform is to be kept.")
    path.chmod(0o600)
