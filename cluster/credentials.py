"""Named credentials: which kinds of integration there are, how models refer to them, and what variables they stand for.

Pure. Who may change them and how is `cluster.credential_control`'s, where they are kept the store's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cluster import errors
from cluster import spec as specs

SECRET, INTEGRATION = "secret", "integration"
HUGGINGFACE, S3, REGISTRY = "huggingface", "s3", "registry"
LONGEST_VALUE = 65_536

ByKind = Mapping[str, Mapping[str, str]]
"""Kind of integration -> the variables that it stands for, with their values."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a kind: the variable that it becomes, whether it must be there, and what it is."""

    variable: str
    required: bool = True
    address: bool = False
    """It says where the others are sent: who changes it gives them anew."""
    hidden: bool = True
    """It must not appear in a log."""


KINDS: Mapping[str, Mapping[str, Field]] = {
    HUGGINGFACE: {
        "token": Field("HF_TOKEN"),
        "endpoint": Field("HF_ENDPOINT", required=False, address=True, hidden=False),
    },
    S3: {
        "accessKeyId": Field("AWS_ACCESS_KEY_ID"),
        "secretAccessKey": Field("AWS_SECRET_ACCESS_KEY"),
        "sessionToken": Field("AWS_SESSION_TOKEN", required=False),
        "region": Field("AWS_REGION", required=False, hidden=False),
        "endpointUrl": Field("AWS_ENDPOINT_URL", required=False, address=True, hidden=False),
    },
    REGISTRY: {
        "server": Field(specs.REGISTRY_SERVER, address=True, hidden=False),
        "username": Field(specs.REGISTRY_SECRETS[0], hidden=False),
        "password": Field(specs.REGISTRY_SECRETS[1]),
    },
}
"""Kind -> field -> what it is."""
HIDDEN = frozenset(field.variable for kind in KINDS.values() for field in kind.values() if field.hidden)


def check(kind: str, values: Mapping[str, str]) -> None:
    """Raises InvalidRequest for fields that such an integration does not have, or lacks, and for values that cannot be."""
    known = KINDS[kind]
    check_names(kind, values)
    for name, value in values.items():
        check_value(value, f"values.{name}")
        if known[name].address:
            _check_address(kind, name, value)
    missing = [name for name, field in known.items() if field.required and name not in values]
    if missing:
        raise errors.InvalidRequest(f"An integration of kind {kind} needs {' and '.join(missing)}.", param=f"values.{missing[0]}")


def check_names(kind: str, names: Iterable[str]) -> None:
    """Raises InvalidRequest for a field that such an integration does not have."""
    unknown = next((name for name in names if name not in KINDS[kind]), None)
    if unknown is not None:
        raise errors.InvalidRequest(
            f"An integration of kind {kind} has no field {unknown[:60]!r}: it has {', '.join(KINDS[kind])}.", param=f"values.{unknown[:60]}"
        )


def check_value(value: str, param: str) -> None:
    """Raises InvalidRequest for an empty value, and one that no environment can hold. Never repeats it."""
    if not value or len(value) > LONGEST_VALUE or "\0" in value:
        raise errors.InvalidRequest(f"{param} must have 1 to {LONGEST_VALUE} characters.", param=param)


def _check_address(kind: str, name: str, value: str) -> None:
    try:
        parts = urlsplit(value if kind != REGISTRY or "//" in value else f"https://{value}")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and not parts.query and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not value.isprintable() or " " in value or "\\" in value:
        like = "ghcr.io" if kind == REGISTRY else "https://host:port"
        raise errors.InvalidRequest(f"values.{name} must be an address like {like}, without a user or a query.", param=f"values.{name}")


def addresses_moved(kind: str, before: Iterable[str], given: Mapping[str, str | None]) -> list[str]:
    """Credentials that have to be given along, because `given` says that they are sent elsewhere. [] where all are."""
    if not any(KINDS[kind][name].address for name in given if name in KINDS[kind]):
        return []
    return [name for name, field in KINDS[kind].items() if field.hidden and name in before and name not in given]


def variables(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """The variables that an integration stands for."""
    return {KINDS[kind][name].variable: value for name, value in values.items() if name in KINDS[kind]}


def flat(found: ByKind) -> dict[str, str]:
    """The variables of all kinds together."""
    return {name: value for kind in found.values() for name, value in kind.items()}


def hidden(found: ByKind) -> list[str]:
    """Values that must not appear in a log."""
    return [value for name, value in flat(found).items() if name in HIDDEN]


def names(stored: Any) -> tuple[str, ...]:
    """What a stored `integration` field names: one, several, or none."""
    if isinstance(stored, str):
        return (stored,)
    return tuple(str(name) for name in stored) if isinstance(stored, list | tuple) else ()


@dataclasses.dataclass(frozen=True)
class Reference:
    """A name in a spec that stands for a credential; `param` is where it is written."""

    shelf: str
    name: str
    param: str


def references(model: Mapping[str, Any]) -> Iterator[Reference]:
    """Everything that the stored form of a model refers to, its members and adapters too."""
    for variable, name in (model.get("secretRefs") or {}).items():
        yield Reference(SECRET, name, f"model.secretRefs.{variable}")
    parts = [("model", model)]
    for field in ("members", "adapters"):
        parts += [(f"model.{field}.{place}", part) for place, part in enumerate(model.get(field) or ())]
    for where, part in parts:
        for name in names(part.get("integration")):
            yield Reference(INTEGRATION, name, f"{where}.integration")
