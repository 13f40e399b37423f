"""Named secrets and integrations in memory, the twin; see `cluster.store.secret_store.SecretStore` for what each method promises."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

from cluster import errors, records

Place = tuple[str, str, str]


class MemorySecrets:
    """Part of MemoryStore, whose lock it uses."""

    _lock: threading.RLock
    _secrets: dict[str, dict[str, str]]

    def __init__(self) -> None:
        self._credentials: dict[Place, records.Credential] = {}

    def add_credential(self, credential: records.Credential) -> None:
        place = (credential.namespace, credential.shelf, credential.name)
        with self._lock:
            if place in self._credentials:
                article = "an" if credential.shelf == "integration" else "a"
                raise errors.AlreadyExists(f"There is {article} {credential.shelf} {credential.name!r} already.")
            self._credentials[place] = dataclasses.replace(credential, fields=dict(credential.fields))

    def credential(self, namespace: str, shelf: str, name: str) -> records.Credential:
        with self._lock:
            if (namespace, shelf, name) not in self._credentials:
                raise errors.NotFound(f"There is no {shelf} {name!r} in the namespace {namespace!r}.")
            found = self._credentials[namespace, shelf, name]
            return dataclasses.replace(found, fields=dict(found.fields))

    def credentials(self, namespace: str, shelf: str | None = None) -> list[records.Credential]:
        with self._lock:
            places = [place for place in sorted(self._credentials) if place[0] == namespace and shelf in (None, place[1])]
            return [self.credential(*place) for place in places]

    def update_credential(self, namespace: str, shelf: str, name: str, changes: Mapping[str, Any]) -> records.Credential:
        with self._lock:
            changed = dataclasses.replace(self.credential(namespace, shelf, name), **changes)
            self._credentials[namespace, shelf, name] = dataclasses.replace(changed, fields=dict(changed.fields))
            return changed

    def delete_credential(self, namespace: str, shelf: str, name: str) -> None:
        with self._lock:
            self.credential(namespace, shelf, name)
            del self._credentials[namespace, shelf, name]

    def reseal(self, change: Callable[[str], str]) -> int:
        with self._lock:
            values = {owner: {name: change(value) for name, value in kept.items()} for owner, kept in self._secrets.items()}
            fields = {place: {name: change(value) for name, value in row.fields.items()} for place, row in self._credentials.items()}
            self._secrets = values
            self._credentials = {place: dataclasses.replace(row, fields=fields[place]) for place, row in self._credentials.items()}
            return sum(map(len, [*values.values(), *fields.values()]))
