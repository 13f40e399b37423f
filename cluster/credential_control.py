"""The commands on named secrets and integrations. What they hold goes in sealed and never comes out here. HTTP is not known."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from cluster import credentials, errors, records, registry, vault
from cluster.actor import Actor
from cluster.resource import Resource
from cluster.store.base import Store

SHOWN_USERS = 10


class NewSecret(Resource):
    """A named value, which endpoints get as a variable of their engine (`model.secretRefs`)."""

    name: str
    value: str = Field(repr=False)
    """Never returned."""
    description: str = Field("", max_length=500)


class EditedSecret(Resource):
    """What may be changed of a secret: what is given."""

    value: str | None = Field(None, repr=False)
    """Used by replicas that start from then on."""
    description: str | None = Field(None, max_length=500)


class NewIntegration(Resource):
    """Credentials of one kind, which models, members and adapters refer to by name (`integration`).

    `huggingface`: token, endpoint. `s3`: accessKeyId, secretAccessKey, sessionToken, region, endpointUrl. `registry`: server,
    username, password.
    """

    name: str
    kind: Literal["huggingface", "s3", "registry"]
    values: dict[str, str] = Field(repr=False)
    """Never returned."""
    description: str = Field("", max_length=500)


class EditedIntegration(Resource):
    """What may be changed of an integration: what is given. A value of null goes."""

    values: dict[str, str | None] | None = Field(None, repr=False)
    """Used by replicas that start from then on. Whoever changes an address gives the credentials with it."""
    description: str | None = Field(None, max_length=500)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A secret or integration, and the paths of the endpoints that refer to it."""

    row: records.Credential
    used_by: tuple[str, ...]


class CredentialControl:
    """One per manager."""

    def __init__(self, *, store: Store, vault: vault.Vault, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    def listed(self, actor: Actor, namespace: str, shelf: str) -> list[Listed]:
        """Those of a namespace, by name."""
        actor.enter(namespace)
        users = self._users(namespace)
        return [Listed(row, users.get((shelf, row.name), ())) for row in self._store.credentials(namespace, shelf)]

    def get(self, actor: Actor, namespace: str, shelf: str, name: str) -> Listed:
        """Raises NotFound."""
        actor.enter(namespace)
        if not re.fullmatch(registry.NAME, name):
            raise errors.NotFound(f"There is no {shelf} {name[:60]!r} in the namespace {namespace!r}.")
        return Listed(self._store.credential(namespace, shelf, name), self._users(namespace).get((shelf, name), ()))

    def add_secret(self, actor: Actor, namespace: str, new: NewSecret) -> Listed:
        """Raises InvalidRequest, AlreadyExists."""
        credentials.check_value(new.value, "value")
        draft = records.Credential(namespace, "secret", new.name, description=new.description)
        return self._add(actor, draft, {"value": new.value})

    def add_integration(self, actor: Actor, namespace: str, new: NewIntegration) -> Listed:
        """Raises InvalidRequest, AlreadyExists."""
        credentials.check(new.kind, new.values)
        return self._add(actor, records.Credential(namespace, "integration", new.name, new.kind, description=new.description), new.values)

    def edit_secret(self, actor: Actor, namespace: str, name: str, edited: EditedSecret) -> Listed:
        """Raises InvalidRequest, NotFound. Nothing that runs is restarted."""
        row = self.get(actor, namespace, credentials.SECRET, name).row
        fields = dict(row.fields)
        if edited.value is not None:
            credentials.check_value(edited.value, "value")
            fields["value"] = self._vault.seal(edited.value)
        return self._edit(actor, row, fields, edited.description)

    def edit_integration(self, actor: Actor, namespace: str, name: str, edited: EditedIntegration) -> Listed:
        """Raises InvalidRequest, NotFound. Nothing that runs is restarted."""
        row = self.get(actor, namespace, credentials.INTEGRATION, name).row
        given = edited.values or {}
        missing = credentials.addresses_moved(row.kind, row.fields, given)
        if missing:
            raise errors.InvalidRequest(
                f"Who changes the address gives the credentials with it: {' and '.join(missing)}.", param=f"values.{missing[0]}"
            )
        fresh = {field: value for field, value in given.items() if value is not None}
        kept = {field: sealed for field, sealed in row.fields.items() if field not in given}
        credentials.check_names(row.kind, given)
        credentials.check(row.kind, {**dict.fromkeys(kept, "https://kept"), **fresh})
        return self._edit(actor, row, {**kept, **self._sealed(fresh)}, edited.description)

    def delete(self, actor: Actor, namespace: str, shelf: str, name: str) -> None:
        """Raises Conflict naming the endpoints that refer to it."""
        with self._store.together():
            found = self.get(actor, namespace, shelf, name)
            if found.used_by:
                more = f" and {len(found.used_by) - SHOWN_USERS} more" if len(found.used_by) > SHOWN_USERS else ""
                raise errors.Conflict(
                    f"The {shelf} {name!r} is in use by {', '.join(found.used_by[:SHOWN_USERS])}{more}: change or delete that first."
                )
            self._store.delete_credential(namespace, shelf, name)

    def reseal(self) -> int:
        """Seal everything that is stored under the newest key; returns how many values. Raises Conflict where one cannot be read."""
        return self._store.reseal(self._vault.reseal)

    def _add(self, actor: Actor, draft: records.Credential, values: Mapping[str, str]) -> Listed:
        actor.enter(draft.namespace)
        if not re.fullmatch(registry.NAME, draft.name):
            raise errors.InvalidRequest(
                "A name is 1 to 63 lower-case letters, digits, dots, hyphens and underscores, with a letter or digit at both ends.",
                param="name",
            )
        now = self._clock()
        row = dataclasses.replace(draft, fields=self._sealed(values), owner=actor.name, created_at=now, updated_at=now)
        self._store.add_credential(row)
        return Listed(row, ())

    def _edit(self, actor: Actor, row: records.Credential, fields: Mapping[str, str], text: str | None) -> Listed:
        changes: dict[str, Any] = {} if fields == row.fields else {"fields": dict(fields)}
        if text not in (None, row.description):
            changes["description"] = text
        if changes:
            self._store.update_credential(row.namespace, row.shelf, row.name, {**changes, "updated_at": self._clock()})
        return self.get(actor, row.namespace, row.shelf, row.name)

    def _sealed(self, values: Mapping[str, str]) -> dict[str, str]:
        return {name: self._vault.seal(value) for name, value in values.items()}

    def _users(self, namespace: str) -> dict[tuple[str, str], tuple[str, ...]]:
        """Endpoints by what they refer to, in what is wanted or in what a revision runs."""
        endpoints = {row.id: row for row in self._store.endpoints(namespace)}
        named = [(row.path, row.spec) for row in endpoints.values()]
        named += [(endpoints[row.endpoint_id].path, row.fields) for row in self._store.all_revisions() if row.endpoint_id in endpoints]
        found: dict[tuple[str, str], set[str]] = {}
        for path, fields in named:
            for reference in credentials.references(fields.get("model") or {}):
                found.setdefault((reference.shelf, reference.name), set()).add(path)
        return {place: tuple(sorted(paths)) for place, paths in found.items()}
