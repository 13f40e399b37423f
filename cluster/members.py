"""Endpoints with several models: each member has replicas, an engine and accelerators of its own within one application.

What a member may say is `cluster.spec`'s, how an instance is divided `cluster.allocation`'s. Everything here also works on an
endpoint without members, which has one part without a name.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster import allocation, engine_kinds, errors, hardware, observation, placement
from cluster import spec as specs


@dataclasses.dataclass(frozen=True)
class Part:
    """One model of an endpoint. `name` is '' for the only one of an endpoint without members; `place` is its index."""

    name: str
    model: specs.Model
    place: int = 0

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """A refusal inside names the member and its field."""
        try:
            yield
        except errors.InvalidRequest as exc:
            if not self.name:
                raise
            param = f"model.members.{self.place}.{exc.param.removeprefix('model.')}" if exc.param else None
            raise errors.InvalidRequest(f"Member {self.name}: {exc.message}", param=param) from exc


def parts(model: specs.Model) -> tuple[Part, ...]:
    """The models of an endpoint, in the user's order."""
    if not model.members:
        return (Part("", model),)
    return tuple(Part(member.name, member.source, place) for place, member in enumerate(model.members))


def placements(model: specs.Model, compute: specs.Compute, rows: Sequence[hardware.Instance]) -> dict[str, specs.Placement]:
    """What one replica of each member claims: its share of the instance. Raises InvalidRequest when they do not fit; {} without members."""
    if not model.members:
        return {}
    primary = model.chosen_primary
    claims = [allocation.Claim(member.gpus, member.name == primary) for member in model.members]
    total = placement.count_of(compute)
    on_cpus = compute.instance_type == hardware.CPU_TYPE
    if on_cpus and (fixed := next((place for place, claim in enumerate(claims) if claim.fixed is not None), None)) is not None:
        raise errors.InvalidRequest(
            f"{compute.instance_type} has no GPUs: leave gpus out, and the CPUs are divided among the members.",
            param=f"model.members.{fixed}.gpus",
        )
    try:
        shares = allocation.divide_cpus(total, claims) if on_cpus else allocation.divide(total, claims)
    except allocation.TooSmall as exc:
        raise errors.InvalidRequest(
            f"{compute.instance_type} {compute.instance_size} has {total} GPUs, and these {len(claims)} members need more: "
            f"choose x{exc.needed}, or give members fewer.",
            param="compute.instanceSize",
        ) from exc
    return {member.name: _placement(share, compute, rows) for member, share in zip(model.members, shares, strict=True)}


def fit(claims: Sequence[specs.Placement], nodes: Sequence[observation.Node]) -> bool:
    """Whether one replica of each finds room now, the largest first."""
    free = {node.id: (node.cpus_free, node.gpus_free) for node in nodes}
    for claim in sorted(claims, key=lambda claim: (-claim.gpus, -claim.cpus)):
        kind = claim.accelerator_type
        fitting = [node for node in nodes if kind is None or node.accelerator == kind]
        if len(claim.bundles) > 1:
            if sum(free[node.id][1] for node in fitting) < claim.gpus:
                return False
            continue
        found = next((node for node in fitting if free[node.id][0] >= claim.cpus and free[node.id][1] >= claim.gpus), None)
        if found is None:
            return False
        free[found.id] = (free[found.id][0] - claim.cpus, free[found.id][1] - claim.gpus)
    return True


def spread(
    whole: observation.Deploy, engine_of: Mapping[str, str], claims: Mapping[str, specs.Placement], now: specs.Model
) -> observation.Deploy:
    """`whole` as one deployment for each member of its model, the primary one first.

    `engine_of` and `claims` are by member. `now` is the endpoint's present model, whose members' scaling applies to every revision.
    """
    model = whole.spec.typed_model
    own = {member.name: member.scaling for member in now.members}
    by_name = {part.name: part.model for part in parts(model)}
    made = []
    for name in model.member_names:
        source = by_name[name]
        shared = {"secretRefs": dict(model.secret_refs)} if model.secret_refs else {}
        fields = {key: value for key, value in source.wire().items() if key != "secrets"} | shared
        spec = whole.spec.model_copy(
            update={
                "member": name,
                "engine": engine_of[name],
                "model": fields,
                "task": engine_kinds.task(source) or whole.spec.task,
                "placement": claims[name],
            }
        )
        made.append(_scaled(dataclasses.replace(whole, spec=spec), own.get(name)))
    return dataclasses.replace(made[0], others=tuple(made[1:])) if made else whole


def of_revision(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(name, task) of the members of a stored revision, the primary one first; () when it has none."""
    stored = fields.get("model", {})
    if not stored.get("members"):
        return ()
    model = specs.Model.model_validate({**stored, "secrets": {}}, extra="ignore")
    tasks = {part.name: engine_kinds.task(part.model) or "" for part in parts(model)}
    return tuple((name, tasks[name]) for name in model.member_names)


def with_scaling(model: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """A stored revision's model with the scaling that its members have in the `present` one: scaling is no part of a revision."""
    scaling = {member["name"]: member["scaling"] for member in present.get("members", ()) if "scaling" in member}
    if not model.get("members"):
        return dict(model)
    return {**model, "members": [{**member, "scaling": scaling.get(member["name"], {})} for member in model["members"]]}


def _placement(share: float, compute: specs.Compute, rows: Sequence[hardware.Instance]) -> specs.Placement:
    if compute.instance_type == hardware.CPU_TYPE:
        return specs.Placement(cpus=share, bundles=({"CPU": float(share)},))
    return placement.of(compute.model_copy(update={"instance_size": f"x{int(share)}"}), rows)


def _scaled(wanted: observation.Deploy, own: specs.MemberScaling | None) -> observation.Deploy:
    if own is None:
        return wanted
    return dataclasses.replace(
        wanted,
        minimum=own.min_replica or wanted.minimum,
        maximum=own.max_replica or wanted.maximum,
        target_concurrency=own.target_concurrency or wanted.target_concurrency,
    )
