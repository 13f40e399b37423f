"""Secret values at rest: sealed under a key derived from the cluster secret, the file `<home>/secret`.

Whoever has a copy of the database alone reads nothing. That file is made by `cluster.home`, the sealed values are kept by the store.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster import errors

SHORTEST_BYTES = 16


class Vault:
    """Seals and opens values. Equal values seal differently each time; a sealed value says how long it is, nothing more."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is the cluster secret. Raises ValueError when it is too short to be one."""
        self._fernet = Fernet(base64.urlsafe_b64encode(derived(secret, b"moorage vault")))

    def seal(self, value: str) -> str:
        """The value, encrypted and authenticated, as URL-safe ASCII."""
        return self._fernet.encrypt(value.encode("utf-8", "surrogatepass")).decode()

    def open(self, sealed: str) -> str:
        """What was sealed. Raises Conflict when it was sealed under another cluster secret, or altered since."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode("utf-8", "surrogatepass")
        except InvalidToken as exc:
            raise errors.Conflict("A stored secret value cannot be read with this cluster's secret: set the value again.") from exc


def derived(secret: bytes, purpose: bytes) -> bytes:
    """A key for this purpose alone: whoever learns it has not learnt the cluster secret, nor the key for another purpose.

    Raises ValueError when the secret is too short to be one.
    """
    if len(secret) < SHORTEST_BYTES:
        raise ValueError(f"a cluster secret has at least {SHORTEST_BYTES} bytes")
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)
