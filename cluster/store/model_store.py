"""The part of the Store port that is about models: the registry, and what was measured when models were loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cluster import records


class ModelStore(Protocol):
    """As `cluster.store.base.Store`, of which it is a part."""

    def add_model_version(self, version: records.ModelVersion, owner: str = "", description: str = "") -> records.ModelVersion:
        """Store a version, and its model where that is new (`owner` and `description` are then the model's).

        Version 0 gets the number after the highest ever given. Raises AlreadyExists when the model has that version.
        """

    def model(self, namespace: str, name: str) -> records.Model:
        """Raises NotFound."""

    def models(self, namespace: str) -> list[records.Model]:
        """Those of a namespace, by name."""

    def model_versions(self, namespace: str, name: str | None = None) -> list[records.ModelVersion]:
        """Of one model or of all of the namespace, ordered by name and version."""

    def update_model(self, namespace: str, name: str, changes: Mapping[str, Any]) -> records.Model:
        """Change `description`, `owner`, `updated_at`. Raises NotFound."""

    def delete_model(self, namespace: str, name: str, version: int | None = None) -> None:
        """Forget one version, or the model with all of them. Raises NotFound."""

    def put_measurement(self, measurement: records.Measurement) -> None:
        """Insert or replace the one of the same model, instance and settings."""

    def measurements(self, repository: str, revision: str, settings: str) -> list[records.Measurement]:
        """Of every instance, by type and size."""
