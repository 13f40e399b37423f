"""The world's say about an endpoint whose form is right: name, hardware, engine, model source. Pure, given the hardware.

`read` turns JSON into a spec, `admit` judges it, `replica_spec` is what the reconciler deploys of an admitted revision.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from cluster import (
    complaints,
    deployment_config,
    engine_environment,
    errors,
    hardware,
    instance_types,
    observation,
    placement,
    planning,
    records,
    vllm_flags,
)
from cluster import spec as specs
from cluster.model_facts import Facts
from cluster.settings import Settings

Engine = Literal["llm", "echo"]
ENGINE_OF_VARIANT: Mapping[str, Engine] = {"huggingface": "llm", "vLLM": "llm", "tgi": "llm", "echo": "echo"}
SLOW_TO_IMPORT = frozenset(variant for variant, engine in ENGINE_OF_VARIANT.items() if engine == "llm")
"""Image variants whose engine a node can be prepared for (see deployments.preparation)."""
IMAGE_TASKS = frozenset({"text-to-image", "image-to-image", "text-to-video", "image-to-video", "inpainting"})
DEFAULT_TASK = "text-generation"
HUB_ID = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
CLOSED = frozenset({"reserved", "not_available"})
"""Words of the operator on an instance type that takes no new endpoints."""
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclasses.dataclass(frozen=True)
class Admitted:
    """A spec that may run here, what one replica will claim, and what its user should know."""

    spec: specs.EndpointSpec
    placement: specs.Placement
    warnings: tuple[str, ...] = ()
    source: specs.Model | None = None
    """The model with the repository that a name of the registry stands for; None where the spec names the repository itself."""
    foresight: planning.Foresight | None = None
    """What is known of the model, None where nothing is."""
    advice: deployment_config.Advice | None = None
    """What the model's author says of this hardware; None where that is not known."""


def read(wire: Mapping[str, Any]) -> specs.EndpointSpec:
    """The spec that a JSON object describes (wire names only). Raises InvalidRequest with the first field that is wrong."""
    return complaints.read(specs.EndpointSpec, wire)


def suggest_name(repository: str, taken: Collection[str]) -> str:
    """A name made from the model's, with a number behind it where that is taken."""
    base = specs.suggest_name(repository or "endpoint")
    if base not in taken and base not in specs.RESERVED_NAMES:
        return base
    return next(name for number in range(2, 10_000) if (name := f"{base[:27].rstrip('-')}-{number}") not in taken)


def with_accelerator(wire: Mapping[str, Any], catalogue: instance_types.Catalogue = instance_types.NONE) -> dict[str, Any]:
    """`wire` with the accelerator that its instance type has, where it names none."""
    compute = wire.get("compute")
    if not isinstance(compute, Mapping) or "accelerator" in compute or "instanceType" not in compute:
        return dict(wire)
    name = compute["instanceType"]
    said = catalogue.gpu(name) if isinstance(name, str) else None
    kind = "gpu" if (name != hardware.CPU_TYPE if said is None else said) else "cpu"
    return {**wire, "compute": {**compute, "accelerator": kind}}


def admit(
    spec: specs.EndpointSpec,
    cluster: observation.Cluster,
    settings: Settings,
    present: str | None = None,
    catalogue: instance_types.Catalogue = instance_types.NONE,
    source: specs.Model | None = None,
) -> Admitted:
    """Whether this can be an endpoint here. `present` is the instance type it has already: a lost node makes no update wrong.

    `source` is the model with the repository that a name of the registry stands for.

    Raises InvalidRequest naming the field and what would be right, Unavailable while nothing is known of the cluster.
    """
    _check_provider(spec)
    engine = engine_of(spec.model)
    if not cluster.nodes:
        raise errors.Unavailable("The cluster's hardware has not been seen yet: try again in a moment.", retry_after=2)
    rows = hardware.instances(cluster, catalogue)
    _check_instance(spec.compute, rows, present)
    check_repository(source or spec.model, engine, settings)
    claim = placement.of(spec.compute, rows)
    engine_environment.check(spec.model.env, "model.env")
    engine_environment.check(spec.model.secrets, "model.secrets")
    if engine == "llm":
        vllm_flags.check(spec.model, claim)
        _check_spread(spec.model, claim)
    return Admitted(spec, claim, (*_hardware_warnings(spec.compute, claim, rows), *_warnings(spec)), source)


def engine_of(model: specs.Model) -> Engine:
    """Which engine serves the model. Raises InvalidRequest for those that are not offered yet."""
    variant = model.image.variant
    if variant not in ENGINE_OF_VARIANT:
        offered = ", ".join(ENGINE_OF_VARIANT)
        raise errors.InvalidRequest(f"The engine {variant!r} is not offered yet: choose one of {offered}.", param="model.image")
    if variant == "huggingface" and model.task in IMAGE_TASKS:
        raise errors.InvalidRequest(
            f"The task {model.task!r} is not offered yet: models that make text, embeddings or scores are.", param="model.task"
        )
    return ENGINE_OF_VARIANT[variant]


def foreseen(
    admitted: Admitted,
    facts: Facts,
    rows: Sequence[hardware.Instance],
    measured: Callable[[specs.Model], planning.Measurements],
) -> Admitted:
    """With what is known of the model. `measured` tells what was measured of a model with its settings.

    Raises InvalidRequest for an architecture that cannot be served, and an instance type that the model's author left out.
    """
    spec, advice = admitted.spec, None
    if facts.known:
        advice = deployment_config.advise(facts.deployment_config, spec, rows, admitted.placement)
        spec = spec.model_copy(update={"model": _advised(spec.model, advice.args)})
    source = admitted.source or spec.model
    seen = planning.foresee(spec, facts, rows, measured(source.model_copy(update={"args": spec.model.args})))
    warnings = (*admitted.warnings, *(advice.notes if advice else ()), *planning.warnings(seen))
    return dataclasses.replace(admitted, foresight=seen, warnings=warnings, advice=advice)


def _advised(model: specs.Model, args: Sequence[str]) -> specs.Model:
    return model.model_copy(update={"args": deployment_config.merged(args, model)}) if args else model


WORKED_OUT = frozenset({"placement", "source", "advice"})
"""Fields of a revision that follow from the others at the moment when it is made."""


def revision_fields(admitted: Admitted) -> dict[str, Any]:
    """What is stored of a revision: what the user said of it, and what was worked out once, so that a node that comes or goes,
    or a registry that changes, never changes a running revision."""
    fields = {**admitted.spec.revision_fields(), "placement": admitted.placement.model_dump(mode="json")}
    if admitted.source is not None:
        fields["source"] = {"repository": admitted.source.repository, "revision": admitted.source.revision}
    if admitted.advice is not None and admitted.advice.args:
        fields["advice"] = list(admitted.advice.args)
    return fields


def replica_spec(
    endpoint: records.Endpoint, revision: records.Revision, instances: Sequence[hardware.Instance], settings: Settings
) -> specs.ReplicaSpec:
    """What the replicas of a revision are started with. `instances` serve revisions that were stored without a placement."""
    fields = revision.fields
    model = {name: value for name, value in {**fields["model"], **fields.get("source", {})}.items() if name != "secrets"}
    typed = specs.Model.model_validate(model, extra="ignore")
    if fields.get("advice"):
        typed = _advised(typed, fields["advice"])
        model["args"] = list(typed.args)
    compute = specs.Compute.model_validate(fields.get("compute", {}), extra="ignore")
    stored = fields.get("placement")
    claim = specs.Placement.model_validate(stored) if stored else placement.of(compute, instances)
    return specs.ReplicaSpec(
        application=specs.application_name(endpoint.namespace, endpoint.name, revision.number),
        namespace=endpoint.namespace,
        endpoint=endpoint.name,
        revision=revision.number,
        engine=engine_of(typed),
        model=model,
        task=typed.task or DEFAULT_TASK,
        placement=claim,
        scaling=endpoint.parsed.compute.scaling.wire(),
        drain_timeout_s=settings.drain_timeout_s,
        load_timeout_s=settings.load_timeout_s,
    )


def _check_provider(spec: specs.EndpointSpec) -> None:
    if spec.provider.vendor != hardware.VENDOR:
        raise errors.InvalidRequest("The only vendor is 'local': this cluster.", param="provider.vendor")
    if spec.provider.region != hardware.REGION:
        raise errors.InvalidRequest("The only region is 'local': this cluster.", param="provider.region")
    if spec.private_service is not None:
        raise errors.InvalidRequest(
            "privateService is a cloud provider's link: set type to private instead; the operator lists the networks that may call it.",
            param="privateService",
        )
    if spec.route.domain or spec.route.path:
        raise errors.InvalidRequest(
            "An endpoint's URL is made from its namespace and name: leave route.domain and route.path out.", param="route"
        )


def _check_instance(compute: specs.Compute, rows: Sequence[hardware.Instance], present: str | None) -> None:
    types = list(dict.fromkeys([*([hardware.CPU_TYPE] if not rows else []), *(row.type for row in rows)]))
    if compute.instance_type not in (*types, present):
        raise errors.InvalidRequest(
            f"There is no instance type {compute.instance_type[:60]!r} here: the cluster has {', '.join(types)}.",
            param="compute.instanceType",
        )
    _check_size(compute, rows)
    known = hardware.of_type(rows, compute.instance_type)
    kind = "gpu" if (known.gpu if known else compute.instance_type != hardware.CPU_TYPE) else "cpu"
    if compute.accelerator != kind:
        raise errors.InvalidRequest(f"{compute.instance_type} has the accelerator {kind!r}.", param="compute.accelerator")
    if known is not None and known.said in CLOSED and compute.instance_type != present:
        raise errors.InvalidRequest(
            f"The operator has marked {known.type} as {known.said}: choose another instance type.", param="compute.instanceType"
        )


def _check_size(compute: specs.Compute, rows: Sequence[hardware.Instance]) -> None:
    if compute.instance_size not in instance_types.SIZES:
        raise errors.InvalidRequest(
            f"There is no instance size {compute.instance_size[:60]!r}: sizes are {', '.join(instance_types.SIZES[:5])} and so on.",
            param="compute.instanceSize",
        )
    offered = [row.size for row in rows if row.type == compute.instance_type and row.fixed]
    if offered and compute.instance_size not in offered:
        raise errors.InvalidRequest(
            f"{compute.instance_type} is offered in the sizes {', '.join(offered)}, not {compute.instance_size}.",
            param="compute.instanceSize",
        )


def check_repository(model: specs.Model, engine: Engine, settings: Settings) -> None:
    """Raises InvalidRequest where no model can lie, or may be taken from."""
    repository = model.repository
    if engine == "echo":
        return
    if not repository:
        raise _refused("model.repository is missing: name a Hugging Face repository, s3://bucket/prefix or an absolute path.")
    if repository.startswith("/"):
        _check_path(repository, settings)
    elif repository.startswith("s3://"):
        _check_bucket(repository)
    elif repository.startswith("model://"):
        raise _refused("A registered model lies somewhere: name that Hugging Face repository, s3://bucket/prefix or path.")
    elif not HUB_ID.fullmatch(repository) or "--" in repository or ".." in repository or repository.endswith((".git", ".", "-")):
        raise _refused("That is no repository id of the Hugging Face Hub (organisation/model), no s3://bucket/prefix and no absolute path.")


def _check_path(path: str, settings: Settings) -> None:
    allowed = [folder for folder in settings.model_paths.split(":") if folder] + [str(settings.model_cache)]
    inside = any(path.startswith(posixpath.normpath(folder).rstrip("/") + "/") for folder in allowed)
    if ".." in path.split("/") or not inside:
        raise _refused("That path is outside the folders that the operator allows (MOORAGE_MODEL_PATHS, and the model cache).")


def _check_bucket(address: str) -> None:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise _refused("That names no bucket: write it as s3://bucket/prefix.")
    if not prefix.isprintable() or {".", ".."} & set(prefix.split("/")):
        raise _refused("A prefix in a bucket has neither '.' nor '..' as a part, and printable characters only.")


def _refused(message: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(message, param="model.repository")


def _check_spread(model: specs.Model, claim: specs.Placement) -> None:
    _, _, data = vllm_flags.parallel_sizes(model, claim)
    if claim.strategy == "PACK" and data > 1:
        raise errors.InvalidRequest("dataParallelSize works within one node only: use more replicas instead.", param="model.image.vLLM")


def _hardware_warnings(compute: specs.Compute, claim: specs.Placement, rows: Sequence[hardware.Instance]) -> list[str]:
    known = hardware.of_type(rows, compute.instance_type)
    if known is not None and known.said == "deprecated":
        return [f"The operator has marked {known.type} as deprecated: it may go.", *_room_warnings(compute, claim, known)]
    return _room_warnings(compute, claim, known)


def _room_warnings(compute: specs.Compute, claim: specs.Placement, known: hardware.Instance | None) -> list[str]:
    count = placement.count_of(compute) if claim.gpus else int(claim.cpus)
    has, unit = (known.best_node if known else 0), "GPUs" if claim.gpus else "CPUs"
    if len(claim.bundles) > 1 and known is not None and count <= known.total:
        return [f"One replica needs {count} GPUs and no node has as many: it will be spread over several nodes."]
    if count > has:
        return [f"One replica needs {count} {unit} on one node; the largest has {has}. The endpoint waits until there is one that does."]
    if known is not None and count > known.free_best_node:
        return [
            f"One replica needs {count} {unit} on one node; the cluster has {known.total} in all and the best node has "
            f"{known.free_best_node:g} free now. The endpoint waits until there is room."
        ]
    return []


def _warnings(spec: specs.EndpointSpec) -> list[str]:
    found = []
    if spec.cache_http_responses:
        found.append("cacheHttpResponses has no effect here: answers are not cached.")
    if spec.experimental_features:
        found.append("experimentalFeatures has no effect here.")
    return found
