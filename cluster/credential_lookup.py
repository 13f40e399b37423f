"""From the names that a model gives to the credentials they stand for: whether they are there, and their values.

Values are looked up when they are needed, by a replica that starts or a look at a model, and kept nowhere: what was rotated is
used from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster import credentials, engine_kinds, errors, records, vault
from cluster import spec as specs
from cluster.store.base import Store


class CredentialLookup:
    """One per manager."""

    def __init__(self, store: Store, vault: vault.Vault) -> None:
        self._store = store
        self._vault = vault

    def check(self, namespace: str, model: specs.Model) -> None:
        """Raises InvalidRequest for a name that is not there, with those that are, and for one that is of no use where it stands."""
        found = list(credentials.references(model.wire()))
        if not found:
            return
        there = {(row.shelf, row.name): row for row in self._store.credentials(namespace)}
        for reference in found:
            if (reference.shelf, reference.name) not in there:
                raise _unknown(reference, namespace, [name for shelf, name in there if shelf == reference.shelf])
        twice = next((name for name in model.secret_refs if name in model.secrets), None)
        if twice is not None:
            raise errors.InvalidRequest(f"{twice} is in both model.secrets and model.secretRefs: say it once.", param="model.secretRefs")
        kinds = {name: row.kind for (shelf, name), row in there.items() if shelf == credentials.INTEGRATION}
        _check_kinds(model, kinds)

    def values(self, namespace: str, model: specs.Model) -> dict[str, str]:
        """The variables that all references of one model stand for, without those of its members and adapters."""
        return {**self.secrets(namespace, model.secret_refs), **credentials.flat(self.by_kind(namespace, model.integration))}

    def of_replica(self, namespace: str, model: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """What the `model` of a ReplicaSpec refers to: variables of secrets, and those of integrations by kind. Raises Conflict."""
        named = self.secrets(namespace, model.get("secretRefs") or {})
        return named, self.by_kind(namespace, credentials.names(model.get("integration")))

    def secrets(self, namespace: str, references: Mapping[str, str]) -> dict[str, str]:
        """Variable -> value of the secret that it names. Raises Conflict for one that is gone."""
        return {variable: self._opened(namespace, credentials.SECRET, name)["value"] for variable, name in references.items()}

    def by_kind(self, namespace: str, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The variables of these integrations, by kind. Raises Conflict for one that is gone."""
        found = {}
        for name in names:
            row = self._row(namespace, credentials.INTEGRATION, name)
            found[row.kind] = credentials.variables(row.kind, self._open(row))
        return found

    def _opened(self, namespace: str, shelf: str, name: str) -> dict[str, str]:
        return self._open(self._row(namespace, shelf, name))

    def _row(self, namespace: str, shelf: str, name: str) -> records.Credential:
        try:
            return self._store.credential(namespace, shelf, name)
        except errors.NotFound as exc:
            raise errors.Conflict(f"The {shelf} {name!r} of the namespace {namespace!r} is gone: make it again, or name another.") from exc

    def _open(self, row: records.Credential) -> dict[str, str]:
        return {name: self._vault.open(sealed) for name, sealed in row.fields.items()}


def _check_kinds(model: specs.Model, kinds: Mapping[str, str]) -> None:
    """At most one of a kind for a source, and registries for containers alone."""
    container = engine_kinds.of(model) == "container" and not model.members
    named = [("model", model.integration, container)]
    named += [(f"model.members.{place}", member.integration, False) for place, member in enumerate(model.members)]
    named += [(f"model.adapters.{place}", adapter.integration, False) for place, adapter in enumerate(model.adapters)]
    for where, names, pulls in named:
        found = [kinds[name] for name in names]
        twice = next((kind for kind in found if found.count(kind) > 1), None)
        if twice is not None:
            raise errors.InvalidRequest(f"Two integrations of kind {twice}: name one of each kind.", param=f"{where}.integration")
        if credentials.REGISTRY in found and not pulls:
            raise errors.InvalidRequest(
                "An integration of kind registry is for images (model.image.custom): there is none here.", param=f"{where}.integration"
            )


def _unknown(reference: credentials.Reference, namespace: str, there: list[str]) -> errors.InvalidRequest:
    have = f"it has {', '.join(there[:20])}" if there else "it has none"
    return errors.InvalidRequest(
        f"There is no {reference.shelf} {reference.name[:63]!r} in the namespace {namespace!r}: {have}.", param=reference.param
    )
