"""The part of the Store port that is about named secrets and integrations. Values come and go sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cluster import records


class SecretStore(Protocol):
    """As `cluster.store.base.Store`, of which it is a part."""

    def add_credential(self, credential: records.Credential) -> None:
        """Raises AlreadyExists when the shelf of the namespace has one of that name."""

    def credential(self, namespace: str, shelf: str, name: str) -> records.Credential:
        """Raises NotFound."""

    def credentials(self, namespace: str, shelf: str | None = None) -> list[records.Credential]:
        """Those of a namespace, ordered by shelf and name."""

    def update_credential(self, namespace: str, shelf: str, name: str, changes: Mapping[str, Any]) -> records.Credential:
        """Change `fields` (as a whole), `description`, `updated_at`. Raises NotFound."""

    def delete_credential(self, namespace: str, shelf: str, name: str) -> None:
        """Raises NotFound."""

    def reseal(self, change: Callable[[str], str]) -> int:
        """Replace every sealed value, those of endpoints too, by what `change` makes of it; returns how many. All of them or none.

        Generations and times stay: what the values are has not changed.
        """
