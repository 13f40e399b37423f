"""The commands on the model registry: names with versions that endpoints are made from. HTTP is not known here."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cluster import admission, complaints, engine_environment, errors, model_shape, model_tasks, records, registry
from cluster import spec as specs
from cluster.actor import Actor
from cluster.credential_lookup import CredentialLookup
from cluster.settings import Settings
from cluster.store.base import Store
from cluster.surveyor import Surveyor

COMMIT = re.compile(r"[0-9a-f]{40}")
LOOK_S = 30.0


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class NewVersion(_Written):
    """Another version of a model: where it lies. What is left out of task and architecture is told by the repository."""

    repository: str = Field(min_length=1, max_length=1024)
    """Hub id, s3://bucket/prefix, or an allowed absolute path."""
    revision: str | None = Field(None, max_length=200)
    """Branch, tag or commit of the Hub; it is pinned to the commit that it is now."""
    version: int | None = Field(None, ge=1, le=999_999_999)
    """Its number; left out, the next one."""
    task: str | None = Field(None, max_length=100)
    architecture: str | None = Field(None, max_length=100)
    description: str = Field("", max_length=2000)
    env: dict[str, str] = {}
    """Environment to look at the repository with (AWS_ENDPOINT_URL, ...). Not kept."""
    secrets: dict[str, str] = Field(default={}, repr=False)
    """Credentials to look at the repository with (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ...). Not kept."""
    integration: specs.Integrations = ()
    """Names of the namespace's integrations to look at the repository with. Not kept: an endpoint names its own."""


class NewModel(NewVersion):
    """A new model, or another version of one that is there."""

    name: str = Field(min_length=1, max_length=63)


class EditedModel(_Written):
    """What of a model can be changed. Its versions cannot."""

    description: str | None = Field(None, max_length=2000)
    owner: str | None = Field(None, max_length=200)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A model with its versions, oldest first."""

    model: records.Model
    versions: tuple[records.ModelVersion, ...]

    @property
    def newest(self) -> records.ModelVersion | None:
        """None when every version was deleted."""
        return self.versions[-1] if self.versions else None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Filters of a list: a model is in it when its newest version is like that."""

    task: str | None = None
    architecture: str | None = None
    owner: str | None = None

    def __contains__(self, item: Listed) -> bool:
        newest = item.newest
        task, architecture = (newest.task, newest.architecture) if newest else ("", "")
        return self.task in (None, task) and self.architecture in (None, architecture) and self.owner in (None, item.model.owner)


class ModelControl:
    """One per manager."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        surveyor: Surveyor,
        credentials: CredentialLookup,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._surveyor = surveyor
        self._credentials = credentials
        self._clock = clock

    def listed(self, actor: Actor, namespace: str, wanted: Wanted = Wanted()) -> list[Listed]:
        """Those of a namespace, by name."""
        actor.enter(namespace)
        versions: dict[str, list[records.ModelVersion]] = {}
        for row in self._store.model_versions(namespace):
            versions.setdefault(row.name, []).append(row)
        found = (Listed(model, tuple(versions.get(model.name, ()))) for model in self._store.models(namespace))
        return [item for item in found if item in wanted]

    def get(self, actor: Actor, namespace: str, name: str) -> Listed:
        """Raises NotFound."""
        actor.enter(namespace)
        if not re.fullmatch(registry.NAME, name):
            raise errors.NotFound(f"There is no model {name[:60]!r} in the namespace {namespace!r}.")
        return Listed(self._store.model(namespace, name), tuple(self._store.model_versions(namespace, name)))

    def version(self, actor: Actor, namespace: str, name: str, number: int) -> records.ModelVersion:
        """Raises NotFound."""
        found = next((row for row in self.get(actor, namespace, name).versions if row.version == number), None)
        if found is None:
            raise errors.NotFound(f"The model {name!r} has no version {number}.")
        return found

    def look(self, actor: Actor, namespace: str, new: NewVersion) -> None:
        """Look at the repository, so that `register` need not: to be called before it, outside of any transaction."""
        with contextlib.suppress(errors.MoorageError):
            self._pinned(actor.enter(namespace), new)

    def register(self, actor: Actor, namespace: str, name: str, new: NewVersion) -> records.ModelVersion:
        """Add a version, and the model where it is new. Looks at the repository, which takes a moment.

        Raises InvalidRequest for a name or repository that cannot be, and for a branch of the Hub that cannot be pinned because the
        repository cannot be read; AlreadyExists for a number that is taken.
        """
        actor.enter(namespace)
        if not re.fullmatch(registry.NAME, name):
            raise errors.InvalidRequest(
                "A model's name is 1 to 63 lower-case letters, digits, dots, hyphens and underscores, with a letter or digit at both ends.",
                param="name",
            )
        if registry.is_address(new.repository):
            raise errors.InvalidRequest("A version lies at a repository, bucket or path, not in the registry.", param="repository")
        pinned = self._pinned(namespace, new)
        row = dataclasses.replace(pinned, namespace=namespace, name=name, created_by=actor.name, created_at=self._clock())
        return self._store.add_model_version(row, actor.name, new.description)

    def edit(self, actor: Actor, namespace: str, name: str, edited: EditedModel) -> Listed:
        """Change what is given."""
        known = self.get(actor, namespace, name)
        changes = edited.model_dump(exclude_none=True)
        model = self._store.update_model(namespace, name, {**changes, "updated_at": self._clock()}) if changes else known.model
        return Listed(model, known.versions)

    def delete(self, actor: Actor, namespace: str, name: str, number: int | None = None) -> None:
        """Forget a version, or the model with all of them; the files stay where they are. Raises Conflict naming who uses it."""
        if number is None:
            self.get(actor, namespace, name)
        else:
            self.version(actor, namespace, name, number)
        users = self.users(namespace, name, number)
        if users:
            what = f"Version {number} of {name}" if number else name
            raise errors.Conflict(f"{what} is in use by {', '.join(users)}: change or delete {'them' if len(users) > 1 else 'it'} first.")
        self._store.delete_model(namespace, name, number)

    def users(self, namespace: str, name: str, number: int | None = None) -> list[str]:
        """Paths of the endpoints of which a wanted or serving revision runs this model (or this version of it)."""
        endpoints = {row.id: row for row in self._store.endpoints()}
        named = [(row, row.spec) for row in endpoints.values()]
        named += [(endpoints[row.endpoint_id], row.fields) for row in self._store.all_revisions() if row.endpoint_id in endpoints]
        found = {endpoint.path for endpoint, fields in named if _names(fields, endpoint.namespace, namespace, name, number)}
        return sorted(found)

    def _pinned(self, namespace: str, new: NewVersion) -> records.ModelVersion:
        """The version's row without its place: with the commit, task and architecture that the repository tells."""
        given = {"repository": new.repository, "revision": new.revision, "env": new.env, "secrets": new.secrets}
        model = complaints.read(specs.Model, given | {"image": {"vLLM": {}}}).model_copy(update={"integration": new.integration})
        try:
            self._credentials.check(namespace, model)
        except errors.InvalidRequest as exc:
            raise errors.InvalidRequest(exc.message, param="integration") from exc
        for name, values in (("env", new.env), ("secrets", new.secrets)):
            engine_environment.check(values, name)
        try:
            admission.check_repository(model, "llm", self._settings)
        except errors.InvalidRequest as exc:
            raise errors.InvalidRequest(exc.message, param="repository") from exc
        own = {name: value for name, value in new.secrets.items() if value}
        facts = self._surveyor.facts(model, own | self._credentials.values(namespace, model), LOOK_S)
        on_hub = not new.repository.startswith(("/", "s3://"))
        commit = facts.version if on_hub and facts.version else (new.revision if COMMIT.fullmatch(new.revision or "") else None)
        if on_hub and commit is None:
            raise errors.InvalidRequest(
                f"The repository cannot be read, so its revision cannot be pinned: {facts.message or facts.problem} Give the commit (40 "
                "hexadecimal digits) as revision to register it all the same.",
                param="revision",
            )
        return records.ModelVersion(
            "",
            "",
            new.version or 0,
            new.repository,
            commit if on_hub else None,
            task=new.task or model_tasks.infer(facts) or "",
            architecture=new.architecture or model_shape.of(facts.config).architecture,
            description=new.description,
        )


def _names(fields: Mapping[str, object], home: str, namespace: str, name: str, number: int | None) -> bool:
    model = fields.get("model")
    repository = model.get("repository") if isinstance(model, Mapping) else None
    if not isinstance(repository, str) or not registry.is_address(repository):
        return False
    address = registry.parse(repository, home)
    return (address.namespace, address.name) == (namespace, name) and number in (None, address.version)
