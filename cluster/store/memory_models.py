"""Models in memory, the twin; see `cluster.store.model_store.ModelStore` for what each method promises."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from cluster import errors, records

Place = tuple[str, str]


class MemoryModels:
    """Part of MemoryStore, whose lock it uses."""

    _lock: threading.RLock

    def __init__(self) -> None:
        self._models: dict[Place, records.Model] = {}
        self._versions: dict[tuple[str, str, int], records.ModelVersion] = {}
        self._measurements: dict[tuple[str, ...], records.Measurement] = {}

    def add_model_version(self, version: records.ModelVersion, owner: str = "", description: str = "") -> records.ModelVersion:
        place = (version.namespace, version.name)
        with self._lock:
            model = self._models.get(place) or records.Model(*place, description, owner, 0, version.created_at)
            stored = dataclasses.replace(version, version=version.version or model.last_version + 1)
            if (*place, stored.version) in self._versions:
                raise errors.AlreadyExists(f"The model {version.name!r} has a version {version.version} already.")
            self._versions[*place, stored.version] = stored
            last = max(model.last_version, stored.version)
            self._models[place] = dataclasses.replace(model, last_version=last, updated_at=version.created_at)
            return stored

    def model(self, namespace: str, name: str) -> records.Model:
        with self._lock:
            if (namespace, name) not in self._models:
                raise errors.NotFound(f"There is no model {name!r} in the namespace {namespace!r}.")
            return self._models[namespace, name]

    def models(self, namespace: str) -> list[records.Model]:
        with self._lock:
            return [self._models[place] for place in sorted(self._models) if place[0] == namespace]

    def model_versions(self, namespace: str, name: str | None = None) -> list[records.ModelVersion]:
        with self._lock:
            found = [self._versions[place] for place in sorted(self._versions) if place[0] == namespace]
            return [one for one in found if name in (None, one.name)]

    def update_model(self, namespace: str, name: str, changes: Mapping[str, Any]) -> records.Model:
        with self._lock:
            changed = dataclasses.replace(self.model(namespace, name), **changes)
            self._models[namespace, name] = changed
            return changed

    def delete_model(self, namespace: str, name: str, version: int | None = None) -> None:
        with self._lock:
            if version is not None:
                if (namespace, name, version) not in self._versions:
                    raise errors.NotFound(f"The model {name!r} has no version {version}.")
                del self._versions[namespace, name, version]
                return
            self.model(namespace, name)
            del self._models[namespace, name]
            self._versions = {place: one for place, one in self._versions.items() if place[:2] != (namespace, name)}

    def put_measurement(self, measurement: records.Measurement) -> None:
        one = measurement
        with self._lock:
            place = (one.repository, one.revision, one.instance_type, one.instance_size, one.settings)
            self._measurements[place] = dataclasses.replace(one, data=dict(one.data))

    def measurements(self, repository: str, revision: str, settings: str) -> list[records.Measurement]:
        with self._lock:
            found = [self._measurements[place] for place in sorted(self._measurements)]
            return [one for one in found if (one.repository, one.revision, one.settings) == (repository, revision, settings)]
