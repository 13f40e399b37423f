"""API keys: minting, offline validity check, hashing. Keys are shown once and stored as SHA-256 (of the whole key).

Format: `moor_` + kind (`p` platform, `e` endpoint) + `_` + 12-character id + `_` + secret (32 base62 characters,
190 bits) + 6-character CRC-32, so that a mistyped or made-up key is refused without a look-up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PATTERN = re.compile(r"moor_([pe])_([0-9A-Za-z]{12})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")
LIKE = re.compile(r"moor_([a-z])_([0-9A-Za-z]{12})_[0-9A-Za-z]+")
"""What may be a key or the beginning of one, wherever it stands in a text."""
PLATFORM, ENDPOINT = "p", "e"


@dataclasses.dataclass(frozen=True)
class Minted:
    """A new key: `id` names it for good, `key` is the only copy of the secret, `digest` is what is stored."""

    id: str
    key: str = dataclasses.field(repr=False)
    digest: str


def mint(kind: str) -> Minted:
    """A new random key of `kind` (PLATFORM or ENDPOINT)."""
    identity = _random(12)
    body = f"moor_{kind}_{identity}_{_random(32)}"
    key = body + _checksum(body)
    return Minted(identity, key, digest(key))


def digest(key: str) -> str:
    """SHA-256 of the key as lower-case hexadecimal, the form that the store and the edge hold."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id(text: str) -> str | None:
    """The 12-character id in a well-formed key, else None. Says nothing about whether the key exists."""
    match = PATTERN.fullmatch(text)
    if match is None or _checksum(text[:-6]) != match.group(4):
        return None
    return match.group(2)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = ALPHABET[rest] + digits
    return digits
