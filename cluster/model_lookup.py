"""From what an endpoint says of its model to where it lies and what is known of it: registry names, facts, measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from cluster import errors, fit, planning, records, registry
from cluster import spec as specs
from cluster.actor import Actor
from cluster.model_facts import Facts
from cluster.store.base import Store
from cluster.surveyor import Surveyor


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A spec that names one version for good, and its model with the repository that this means."""

    spec: specs.EndpointSpec
    source: specs.Model


class ModelLookup:
    """One per manager."""

    def __init__(self, store: Store, surveyor: Surveyor) -> None:
        self._store = store
        self._surveyor = surveyor

    def resolve(self, actor: Actor, namespace: str, spec: specs.EndpointSpec) -> Resolved:
        """`model://name` becomes `model://name@<newest>`. Raises InvalidRequest for a model or version that is not registered."""
        model = spec.model
        if not registry.is_address(model.repository):
            return Resolved(spec, model)
        address = registry.parse(model.repository, namespace)
        if model.revision is not None:
            raise errors.InvalidRequest("A registered model has versions: write model://name@version.", param="model.revision")
        try:
            actor.enter(address.namespace)
            version = self._version(address)
        except errors.NotFound as exc:
            raise errors.InvalidRequest(exc.message, param="model.repository") from exc
        exact = dataclasses.replace(address, version=version.version).text(namespace)
        task = model.task or version.task or None
        said = spec.model_copy(update={"model": model.model_copy(update={"repository": exact, "task": task})})
        source = model.model_copy(update={"repository": version.repository, "revision": version.revision, "task": task})
        return Resolved(said, source)

    def facts(self, source: specs.Model, secrets: Mapping[str, str], wait_s: float) -> Facts:
        """What a look at the model finds; waits for it. Not to be called inside a transaction."""
        return self._surveyor.facts(source, secrets, wait_s)

    def known(self, source: specs.Model, secrets: Mapping[str, str]) -> Facts | None:
        """What such a look found a moment ago."""
        return self._surveyor.known(source, secrets)

    def measured(self, source: specs.Model) -> planning.Measurements:
        """What was measured when this model was loaded with these settings."""
        rows = self._store.measurements(source.repository, source.revision or "", fit.Settings.of(source).signature)
        return {(row.instance_type, row.instance_size): _measured(row.data) for row in rows}

    def newest(self, repository: str, namespace: str) -> int | None:
        """The newest version of a registered model that is newer than the one that `repository` names; None when there is none."""
        if not registry.is_address(repository):
            return None
        address = registry.parse(repository, namespace)
        versions = self._store.model_versions(address.namespace, address.name)
        last = max((row.version for row in versions), default=0)
        return last if last > (address.version or 0) else None

    def _version(self, address: registry.Address) -> records.ModelVersion:
        rows = self._store.model_versions(address.namespace, address.name)
        if not rows:
            raise errors.NotFound(f"There is no model {address.name!r} in the registry of the namespace {address.namespace!r}.")
        if address.version is None:
            return rows[-1]
        found = next((row for row in rows if row.version == address.version), None)
        if found is None:
            have = ", ".join(str(row.version) for row in rows[-5:])
            raise errors.NotFound(f"The model {address.name!r} has no version {address.version}: it has {have}.")
        return found


def _measured(data: Mapping[str, float]) -> fit.Measured:
    return fit.Measured(
        weights_bytes=int(data.get("weightsBytes", 0)),
        cache_tokens=int(data.get("cacheTokens", 0)),
        max_model_len=int(data.get("maxModelLen", 0)),
        concurrency=float(data.get("concurrency", 0.0)),
    )
