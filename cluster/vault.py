"""Secret values at rest: sealed under the operator's keys (MOORAGE_VAULT_KEY_FILE), or one derived from the cluster secret.

Whoever has a copy of the database alone reads nothing. `<home>/secret` is made by `cluster.home`, the sealed values are kept by the store.
"""

from __future__ import annotations

import base64
import binascii
import logging
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster import errors

log = logging.getLogger(__name__)
SHORTEST_BYTES = 16
SHORTEST_KEY_BYTES = 32


class KeyFileUnusable(errors.MoorageError):
    """The file of vault keys cannot be used."""

    code = "vault_key_file_unusable"


class Vault:
    """Seals and opens values. Equal values seal differently each time; a sealed value says how long it is, nothing more.

    Seals under the first key of the file and opens under any of them. What was sealed before there was a file stays readable.
    """

    def __init__(self, secret: bytes, key_file: Path | None = None) -> None:
        """`secret` is the cluster secret. Raises ValueError when it is too short to be one, KeyFileUnusable."""
        self._derived = Fernet(base64.urlsafe_b64encode(derived(secret, b"moorage vault")))
        self._file = key_file
        self._lock = threading.Lock()
        self._stamp = _stamp(key_file)
        self._fernet = self._read()

    def seal(self, value: str) -> str:
        """The value, encrypted and authenticated, as URL-safe ASCII."""
        return self._current().encrypt(value.encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: str) -> str:
        """What was sealed. Raises Conflict when it was sealed under a key that is not here, or altered since."""
        try:
            return self._current().decrypt(sealed.encode()).decode("utf-8", "surrogatepass")
        except InvalidToken as exc:
            raise _unreadable() from exc

    def reseal(self, sealed: str) -> str:
        """The same value, sealed under the first key. Raises Conflict as `open` does."""
        try:
            return self._current().rotate(sealed.encode()).decode()
        except InvalidToken as exc:
            raise _unreadable() from exc

    def _current(self) -> MultiFernet:
        """With the keys that the file has now; one that cannot be used is told in the log, and the keys known before go on."""
        stamp = _stamp(self._file)
        with self._lock:
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._fernet = self._read()
                except KeyFileUnusable as exc:
                    log.error("the keys known before are used: %s", exc.message)
            return self._fernet

    def _read(self) -> MultiFernet:
        return MultiFernet([*(read_keys(self._file) if self._file is not None else ()), self._derived])


def read_keys(path: Path) -> list[Fernet]:
    """Of a file that nobody else may read: a key on each line (a Fernet key, or 32 characters and more), or 32 random bytes and more.

    Raises KeyFileUnusable with what would be right; its message never has any of the content.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as exc:
        raise KeyFileUnusable(f"MOORAGE_VAULT_KEY_FILE: {path} cannot be read ({exc.strerror}).") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileUnusable(f"MOORAGE_VAULT_KEY_FILE: others may read {path}: chmod 600 {path}.")
    keys = _parts(content)
    if not keys or any(len(key) < SHORTEST_KEY_BYTES for key in keys):
        raise KeyFileUnusable(
            f"MOORAGE_VAULT_KEY_FILE: {path} needs at least {SHORTEST_KEY_BYTES} random bytes for each key: openssl rand -hex 32 makes one."
        )
    return [_fernet(key) for key in keys]


def _parts(content: bytes) -> Sequence[bytes]:
    """The lines of a text; anything else is one key as a whole."""
    text = content.strip()
    if text.isascii() and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text):
        return [line.strip() for line in text.splitlines() if line.strip()]
    return [content]


def _fernet(key: bytes) -> Fernet:
    """A key in Fernet's own form as it is, else one derived from it."""
    try:
        if len(key) == 44 and len(base64.urlsafe_b64decode(key)) == SHORTEST_KEY_BYTES:
            return Fernet(key)
    except (binascii.Error, ValueError):
        pass
    return Fernet(base64.urlsafe_b64encode(derived(key, b"moorage vault key file")))


def derived(secret: bytes, purpose: bytes) -> bytes:
    """A key for this purpose alone: whoever learns it has not learnt the cluster secret, nor the key for another purpose.

    Raises ValueError when the secret is too short to be one.
    """
    if len(secret) < SHORTEST_BYTES:
        raise ValueError(f"a cluster secret has at least {SHORTEST_BYTES} bytes")
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _stamp(path: Path | None) -> tuple[int, ...]:
    """Differs after the file was changed; () when there is none."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode) if found is not None else ()


def _unreadable() -> errors.Conflict:
    return errors.Conflict("A stored secret value cannot be read with this platform's keys: set the value again, or bring back its key.")
