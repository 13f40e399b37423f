"""Names of models in the registry: `model://name[@version]`, of the endpoint's namespace, or `model://namespace/name[@version]`."""

from __future__ import annotations

import dataclasses
import re

from cluster import errors

SCHEME = "model://"
NAME = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
LATEST = "latest"
ADDRESS = re.compile(rf"(?:(?P<namespace>[a-z0-9][a-z0-9-]{{0,39}})/)?(?P<name>{NAME})(?:@(?P<version>[0-9]{{1,9}}|{LATEST}))?")


@dataclasses.dataclass(frozen=True)
class Address:
    """A model of a namespace; `version` None = the newest."""

    namespace: str
    name: str
    version: int | None = None

    def text(self, home: str) -> str:
        """As an endpoint of the namespace `home` writes it."""
        place = self.name if self.namespace == home else f"{self.namespace}/{self.name}"
        return f"{SCHEME}{place}" + (f"@{self.version}" if self.version else "")


def is_address(repository: str) -> bool:
    """Whether it names a model of a registry."""
    return repository.startswith(SCHEME)


def parse(repository: str, home: str) -> Address:
    """What an endpoint of the namespace `home` means by it. Raises InvalidRequest."""
    match = ADDRESS.fullmatch(repository.removeprefix(SCHEME)) if is_address(repository) else None
    if match is None or match["version"] == "0":
        raise errors.InvalidRequest(
            "A model of the registry is written as model://name, model://name@version or model://namespace/name@version.",
            param="model.repository",
        )
    version = match["version"]
    return Address(match["namespace"] or home, match["name"], int(version) if version and version != LATEST else None)
