"""The commands on endpoints: each reads, judges and writes the store in one step, then hints the reconciler.

Nothing here waits for the cluster: what a command wants becomes true in the passes that follow. HTTP is not known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from cluster import (
    adapters,
    admission,
    credential_lookup,
    engine_kinds,
    errors,
    hardware,
    instance_types,
    keys,
    lora,
    members,
    merging,
    model_lookup,
    observation,
    planning,
    records,
    sharing,
    state,
    surveyor,
    vault,
)
from cluster import spec as specs
from cluster.actor import Actor
from cluster.settings import Settings
from cluster.store.base import Store

FIRST_KEY = "First Key"
LOOK_S, PATIENT_LOOK_S = 5.0, 30.0
"""How long a change waits for a look at its model, and how long a plan does, which is made for nothing else."""
NAME_OR_ID = r"[a-z0-9-]{1,64}"
UPDATE_ATTEMPTS = 5
"""An update is merged again when another one came between; so often at most."""


@dataclasses.dataclass(frozen=True)
class Created:
    """A new endpoint, its First Key (the only copy), and what its user should know."""

    endpoint: records.Endpoint
    key: keys.Minted
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a create or update would do (`dryRun`): nothing was changed."""

    spec: specs.EndpointSpec
    placement: specs.Placement
    members: Mapping[str, specs.Placement]
    new_revision: bool
    changed: tuple[str, ...]
    warnings: tuple[str, ...]
    fits_now: bool
    cost: Mapping[str, Any]
    foresight: planning.Foresight | None
    """What is known of the model; None where nothing is, or where the engine needs none."""


class Control:
    """One per manager. Every method is one command; the store's unique keys and generations have the last word."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        vault: vault.Vault,
        statuses: Callable[[records.Endpoint], state.Status],
        hint: Callable[[str], None],
        cluster: Callable[[], observation.Cluster],
        loads: Callable[[records.Endpoint], Sequence[float]] = lambda endpoint: (),  # noqa: ARG005
        types: Callable[[], instance_types.Catalogue] = lambda: instance_types.NONE,
        models: surveyor.Surveyor | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.settings = settings
        self.cluster = cluster
        self.loads = loads
        self.types = types
        self.models = model_lookup.ModelLookup(store, models or surveyor.Surveyor(surveyor.nowhere))
        self._vault = vault
        self._credentials = credential_lookup.CredentialLookup(store, vault)
        self._statuses = statuses
        self._hint = hint
        self._clock = clock

    # Reading

    def get(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        """By name or id. Raises NotFound."""
        actor.enter(namespace)
        missing = errors.NotFound(f"There is no endpoint {name[:60]!r} in the namespace {namespace!r}.")
        if not re.fullmatch(NAME_OR_ID, name):
            raise missing
        try:
            return self.store.endpoint(namespace, name)
        except errors.NotFound:
            raise missing from None

    def list(self, actor: Actor, namespace: str) -> list[records.Endpoint]:
        """Those of a namespace, by name."""
        return self.store.endpoints(actor.enter(namespace))

    def status(self, endpoint: records.Endpoint) -> state.Status:
        """The derived status."""
        return self._statuses(endpoint)

    def instances(self) -> tuple[hardware.Instance, ...]:
        """The hardware table as it is now."""
        return hardware.instances(self.cluster(), self.types())

    def seal(self, text: str) -> str:
        """Encrypt what has to be kept but not read in the database."""
        return self._vault.seal(text)

    def unseal(self, text: str) -> str:
        """The text that was sealed."""
        return self._vault.open(text)

    def update_available(self, endpoint: records.Endpoint) -> int | None:
        """The newest version of its registered model, when the endpoint has an older one."""
        return self.models.newest(endpoint.spec.get("model", {}).get("repository", ""), endpoint.namespace)

    # Changing

    def look(self, actor: Actor, namespace: str, wire: Mapping[str, Any], name: str | None = None, wait_s: float = LOOK_S) -> None:
        """Look at the model that a create or update (of `name`) would serve, so that the command knows it. Waits, changes nothing.

        To be called before the command, which may be part of a transaction. What is wrong with `wire` is the command's to say.
        """
        if name is not None and not _concerns_the_model(wire):
            return
        with contextlib.suppress(errors.MoorageError):
            if name is None:
                admitted, secrets = self._admitted(actor, namespace, wire), None
            else:
                endpoint = self._writable(actor, namespace, name)
                admitted, secrets = self._merged(actor, endpoint, wire), endpoint
            if _looked_at(admitted.spec.model):
                self.models.facts(admitted.source or admitted.spec.model, self._values(namespace, admitted.spec, secrets), wait_s)

    def create(self, actor: Actor, namespace: str, wire: Mapping[str, Any]) -> Created:
        """Admit and store a new endpoint with its First Key. Raises InvalidRequest, AlreadyExists."""
        admitted = self._admitted(actor, namespace, wire)
        spec, now, minted = admitted.spec, self._clock(), keys.mint(keys.ENDPOINT)
        stored, hidden = split_secrets(spec)
        row = records.Endpoint(
            id=secrets.token_hex(8),
            namespace=namespace,
            name=spec.name,
            spec=stored,
            target=1,
            awake=not spec.compute.scaling.start_at_zero,
            created_at=now,
            updated_at=now,
            created_by=actor.name,
            updated_by=actor.name,
        )
        key = records.Key(
            minted.id, minted.digest, keys.ENDPOINT, namespace, FIRST_KEY, row.id, True, actor.name, created_at=now, updated_at=now
        )
        event = records.Event(row.id, now, "create", f"Created by {actor.name}.", data={"warnings": list(admitted.warnings)})
        created = self.store.create_endpoint(row, admission.revision_fields(admitted), key, self._sealed(hidden, {}), [event])
        self._hint(created.id)
        return Created(created, minted, admitted.warnings)

    def plan_create(self, actor: Actor, namespace: str, wire: Mapping[str, Any]) -> Plan:
        """What `create` would do."""
        self.look(actor, namespace, wire, wait_s=PATIENT_LOOK_S)
        return self._plan(self._admitted(actor, namespace, wire), True, tuple(sorted(wire)))

    def update(self, actor: Actor, namespace: str, name: str, wire: Mapping[str, Any], expected: int | None = None) -> records.Endpoint:
        """Merge a partial spec into an endpoint. What replicas run becomes a new revision, the rest applies in place.

        Raises InvalidRequest, and StaleGeneration when `expected` is not the present generation.
        """
        for _ in range(UPDATE_ATTEMPTS):
            endpoint = self._writable(actor, namespace, name)
            _check_generation(endpoint, expected)
            try:
                return self._update(actor, endpoint, wire)
            except errors.StaleGeneration:
                if expected is not None:
                    raise
        raise errors.StaleGeneration

    def _update(self, actor: Actor, endpoint: records.Endpoint, wire: Mapping[str, Any]) -> records.Endpoint:
        admitted, before = self._merged(actor, endpoint, wire), endpoint.parsed
        stored, values = split_secrets(admitted.spec)
        kept = adapters.with_retired(stored, endpoint.spec)
        known = self.store.secrets(endpoint.id)
        sealed = self._sealed(values, known)
        fields = self._new_fields(endpoint, admitted)
        if stored == split_secrets(before)[0] and sealed == known and fields is None:
            return endpoint
        changes: dict[str, Any] = {"spec": kept, "updated_by": actor.name}
        if before.compute.scaling.min_replica == 0 < admitted.spec.compute.scaling.min_replica:
            changes["awake"] = True
        if sealed != known and fields is None:
            # What failed for want of the right token gets another try; what runs is left alone.
            self._retry(endpoint)
        text = f"Updated by {actor.name}: {', '.join(merging.paths(wire))}."
        secrets = None if sealed == known else sealed
        return self._write(endpoint, changes, "update", text, expected=endpoint.generation, fields=fields, secrets=secrets)

    def plan_update(self, actor: Actor, namespace: str, name: str, wire: Mapping[str, Any]) -> Plan:
        """What `update` would do."""
        self.look(actor, namespace, {"model": {}, **wire}, name, wait_s=PATIENT_LOOK_S)
        endpoint = self._writable(actor, namespace, name)
        admitted = self._merged(actor, endpoint, wire)
        changed = merging.differences(split_secrets(endpoint.parsed)[0], split_secrets(admitted.spec)[0])
        new = self._new_fields(endpoint, admitted) is not None
        return self._plan(admitted, new, tuple(changed), switched_on(endpoint.parsed, admitted.spec))

    def pause(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        """Stop it until a person resumes it; requests do not wake it."""
        endpoint = self._commanded("pause", actor, namespace, name)
        if endpoint.desired == "paused":
            return endpoint
        return self._write(endpoint, {"desired": "paused"}, "pause", f"Paused by {actor.name}.")

    def resume(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        """Start a paused, failed or sleeping endpoint. Raises AlreadyRunning on one that runs or starts."""
        endpoint = self._commanded("resume", actor, namespace, name)
        self._retry(endpoint)
        return self._write(endpoint, {"desired": "running", "awake": True}, "resume", f"Resumed by {actor.name}.")

    def scale_to_zero(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        """Stop the replicas until the next request. Raises Conflict on a committed plan, which keeps a replica at all times."""
        endpoint = self._commanded("scale-to-zero", actor, namespace, name)
        if endpoint.parsed.compute.plan == "committed":
            raise errors.Conflict("A committed plan keeps a replica: change compute.plan to hourly first, or pause the endpoint.")
        if not endpoint.awake:
            return endpoint
        return self._write(endpoint, {"awake": False}, "scale-to-zero", f"Scaled to zero by {actor.name}.")

    def restart(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        """Replace every replica by a new one, new ones first; also retries a failed revision."""
        endpoint = self._commanded("restart", actor, namespace, name)
        self._retry(endpoint)
        changes = {"restarts": endpoint.restarts + 1, "awake": True}
        return self._write(endpoint, changes, "restart", f"Restarted by {actor.name}.")

    def rollback(self, actor: Actor, namespace: str, name: str, to: int | None = None) -> records.Endpoint:
        """Go back to what an earlier revision ran: the serving one when the newest failed, else the one that was live before.

        Going back to the serving one takes effect at once; any other is started as a new revision. Secrets stay as they are.
        """
        endpoint = self._commanded("rollback", actor, namespace, name)
        source = self._rollback_source(endpoint, to)
        stored = merging.with_revision(endpoint.spec, source.fields)
        runs = specs.Model.model_validate({**source.fields["model"], "secrets": {}}, extra="ignore")
        if stored["model"]["adapters"] and not lora.enabled(runs):
            raise errors.Conflict(f"Revision {source.number} runs without LoRA: remove the adapters first.")
        self._check_still_there(endpoint, source, runs.model_copy(update={"secrets": endpoint.parsed.model.secrets}))
        fields = {**source.fields, "model": {**source.fields["model"], "secrets": sorted(stored["model"]["secrets"])}}
        text = f"Rolled back to revision {source.number} by {actor.name}."
        if source.number == endpoint.serving:
            return self._write(endpoint, {"spec": stored, "target": source.number}, "rollback", text)
        return self._write(endpoint, {"spec": stored}, "rollback", text, fields=fields)

    def delete(self, actor: Actor, namespace: str, name: str, expected: int | None = None) -> records.Endpoint:
        """Forget it, its keys and its history; its replicas drain and go. Returns what was deleted."""
        endpoint = self._writable(actor, namespace, name)
        _check_generation(endpoint, expected)
        self.store.delete_endpoint(endpoint.id, expected=expected)
        self._hint(endpoint.id)
        return endpoint

    # Parts

    def _admitted(self, actor: Actor, namespace: str, wire: Mapping[str, Any]) -> admission.Admitted:
        actor.enter(namespace)
        named = admission.with_accelerator(wire, self.types())
        if named.get("name") is None:
            taken = {row.name for row in self.store.endpoints(namespace)}
            model = named.get("model")
            repository = model.get("repository", "") if isinstance(model, Mapping) else ""
            named["name"] = admission.suggest_name(str(repository), taken)
        spec = admission.read(named)
        _check_values(spec.model.secrets, ())
        self._check_sharing(spec)
        return self._judged(actor, namespace, spec)

    def _merged(self, actor: Actor, endpoint: records.Endpoint, wire: Mapping[str, Any]) -> admission.Admitted:
        if wire.get("name", endpoint.name) != endpoint.name:
            raise errors.InvalidRequest("An endpoint keeps its name: create another one instead.", param="name")
        present = split_secrets(endpoint.parsed)[0]
        spec = admission.read(merging.merge(present, admission.with_accelerator(wire, self.types())))
        _check_values(spec.model.secrets, present["model"]["secrets"])
        sharing.check_change(actor, endpoint, spec)
        self._check_sharing(spec, endpoint.parsed.shared_with)
        return self._judged(actor, endpoint.namespace, spec, endpoint, renewed=_other_model(wire, endpoint))

    def _check_sharing(self, spec: specs.EndpointSpec, before: Sequence[str] = ()) -> None:
        if spec.shared_with:
            sharing.check_tenants(spec.shared_with, before, {row.name for row in self.store.tenants()})

    def _judged(
        self, actor: Actor, namespace: str, spec: specs.EndpointSpec, endpoint: records.Endpoint | None = None, *, renewed: bool = False
    ) -> admission.Admitted:
        """`renewed`: the model is another one and no task was given with it, so that the old one's says nothing of it."""
        self._credentials.check(namespace, spec.model)
        resolved = self.models.resolve(actor, namespace, _without_task(spec) if renewed else spec)
        facts = self.models.known(resolved.source, self._values(namespace, spec, endpoint))
        judged = planning.with_task(resolved.spec, facts)
        if renewed and judged.model.task is None:
            judged = judged.model_copy(update={"model": judged.model.model_copy(update={"task": spec.model.task})})
        source = resolved.source if resolved.source is not resolved.spec.model else None
        present = endpoint.parsed.compute.instance_type if endpoint else None
        admitted = admission.admit(judged, self.cluster(), self.settings, present=present, catalogue=self.types(), source=source)
        if facts is None or not _looked_at(judged.model):
            return admitted
        return admission.foreseen(admitted, facts, self.instances(), self.models.measured)

    def _plan(self, admitted: admission.Admitted, new: bool, changed: tuple[str, ...], more: Collection[str] = ()) -> Plan:
        seen = admitted.foresight
        warnings = dict.fromkeys((*admitted.warnings, *(planning.warnings(seen, patient=True) if seen else ()), *more))
        cost = planning.cost(admitted.spec, self.instances())
        return Plan(admitted.spec, admitted.placement, admitted.members, new, changed, tuple(warnings), self._fits(admitted), cost, seen)

    def _values(self, namespace: str, spec: specs.EndpointSpec, endpoint: records.Endpoint | None) -> dict[str, str]:
        """The values of its secrets: those given, else those stored; and of what it refers to."""
        sealed = self.store.secrets(endpoint.id) if endpoint and spec.model.secrets else {}
        known = {name: value or (self._vault.open(sealed[name]) if name in sealed else "") for name, value in spec.model.secrets.items()}
        return {name: value for name, value in known.items() if value} | self._credentials.values(namespace, spec.model)

    def _new_fields(self, endpoint: records.Endpoint, admitted: admission.Admitted) -> dict[str, Any] | None:
        """The new revision's fields, None when what replicas run stays the same."""
        fields = admission.revision_fields(admitted)
        target = next((row for row in self.store.revisions(endpoint.id) if row.number == endpoint.target), None)
        if target is None:  # deleted since it was read
            raise errors.NotFound(f"There is no endpoint {endpoint.name!r} any more.")
        if admitted.advice is None and "advice" in target.fields and _same_place(fields, target.fields):
            fields["advice"] = target.fields["advice"]  # the repository could not be read just now
        said = {name: value for name, value in target.fields.items() if name not in admission.WORKED_OUT}
        return None if said == {name: value for name, value in fields.items() if name not in admission.WORKED_OUT} else fields

    def _check_still_there(self, endpoint: records.Endpoint, source: records.Revision, runs: specs.Model) -> None:
        """Raises Conflict where a revision refers to secrets or integrations that have been deleted since."""
        try:
            self._credentials.check(endpoint.namespace, runs)
        except errors.InvalidRequest as exc:
            raise errors.Conflict(f"Revision {source.number} cannot be gone back to. {exc.message}") from exc

    def _rollback_source(self, endpoint: records.Endpoint, to: int | None) -> records.Revision:
        rows = {row.number: row for row in self.store.revisions(endpoint.id)}
        if to is None:
            lived = [row.number for row in rows.values() if row.live_at is not None and row.number != endpoint.target]
            if not lived:
                raise errors.Conflict("There is no earlier revision that was ever live to go back to.")
            to = endpoint.serving if endpoint.serving != endpoint.target and endpoint.serving is not None else max(lived)
        if to not in rows:
            raise errors.NotFound(f"There is no revision {to} of {endpoint.name}.")
        if to == endpoint.target:
            raise errors.Conflict(f"Revision {to} is the present one of {endpoint.name}: `restart` starts it anew.")
        return rows[to]

    def _writable(self, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        endpoint = self.get(actor, namespace, name)
        if endpoint.source == "declarative":
            raise errors.ReadOnly
        return endpoint

    def _commanded(self, command: str, actor: Actor, namespace: str, name: str) -> records.Endpoint:
        endpoint = self._writable(actor, namespace, name)
        now = self._statuses(endpoint).state
        if now in state.ALLOWED[command]:
            return endpoint
        if command == "resume":
            raise errors.AlreadyRunning(f"{endpoint.name} is already running (its state is {now}).")
        raise errors.Conflict(f"{command} is not possible while {endpoint.name} is {now}.")

    def _write(
        self,
        endpoint: records.Endpoint,
        changes: Mapping[str, Any],
        kind: str,
        text: str,
        *,
        expected: int | None = None,
        fields: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> records.Endpoint:
        now = self._clock()
        event = records.Event(endpoint.id, now, kind, text)
        row = self.store.update_endpoint(
            endpoint.id, {"updated_at": now, **changes}, expected=expected, fields=fields, secrets=secrets, events=[event]
        )
        self._hint(endpoint.id)
        return row

    def _retry(self, endpoint: records.Endpoint) -> None:
        """Forget an earlier failure of what should run."""
        self.store.mark_revision(endpoint.id, endpoint.target, clear=True)

    def _sealed(self, values: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
        """What to store of secrets: new values sealed, those named without a value as they are known."""
        return {name: self._vault.seal(value) if value else known[name] for name, value in values.items() if value or name in known}

    def _fits(self, admitted: admission.Admitted) -> bool:
        return members.fit(tuple(admitted.members.values()) or (admitted.placement,), self.cluster().nodes)


def split_secrets(spec: specs.EndpointSpec) -> tuple[dict[str, Any], dict[str, str]]:
    """The wire form to store, with secrets by name only (values ''), and the values apart."""
    wire = spec.wire()
    hidden = dict(spec.model.secrets)
    wire["model"]["secrets"] = dict.fromkeys(sorted(hidden), "")
    # Said once, at creation: from then on the endpoint's own `awake` tells.
    wire["compute"]["scaling"].pop("startAtZero", None)
    return wire, hidden


def switched_on(before: specs.EndpointSpec, after: specs.EndpointSpec) -> tuple[str, ...]:
    """What the user of a change should know that makes the engine start with LoRA."""
    return (adapters.SWITCHED_ON,) if after.model.adapters and not lora.enabled(before.model) else ()


def _looked_at(model: specs.Model) -> bool:
    """Whether something can be told of the model before it starts: it is one, and vLLM is to serve it."""
    return not model.members and engine_kinds.of(model) == "llm"


def _concerns_the_model(wire: Mapping[str, Any]) -> bool:
    """Whether a change is one of the model or its hardware, and not of how many replicas there are, or of words."""
    compute = wire.get("compute")
    return "model" in wire or (isinstance(compute, Mapping) and bool({"instanceType", "instanceSize"} & set(compute)))


def _other_model(wire: Mapping[str, Any], endpoint: records.Endpoint) -> bool:
    """Whether a change names another repository, and no task with it."""
    model = wire.get("model")
    return (
        isinstance(model, Mapping)
        and "task" not in model
        and model.get("repository", endpoint.parsed.model.repository) != (endpoint.parsed.model.repository)
    )


def _same_place(fields: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether two revisions run the same model on the same instance type."""
    model, old = fields["model"], before["model"]
    same_model = all(model.get(name) == old.get(name) for name in ("repository", "revision"))
    return same_model and fields["compute"]["instanceType"] == before["compute"]["instanceType"]


def _without_task(spec: specs.EndpointSpec) -> specs.EndpointSpec:
    return spec.model_copy(update={"model": spec.model.model_copy(update={"task": None})})


def _check_values(secrets: Mapping[str, str], known: Collection[str]) -> None:
    """Only a secret that is stored already may be named without a value."""
    for name, value in secrets.items():
        if not value and name not in known:
            raise errors.InvalidRequest(f"The secret {name} has no value: give one.", param=f"model.secrets.{name}")


def _check_generation(endpoint: records.Endpoint, expected: int | None) -> None:
    if expected not in (None, endpoint.generation):
        raise errors.StaleGeneration
