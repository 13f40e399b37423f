"""The world's say about an endpoint whose form is right: name, hardware, engine, model source. Pure, given the hardware,
but for adapters in allowed folders, whose configuration is read.

`read` turns JSON into a spec, `admit` judges it, `replica_spec` is what the reconciler deploys of an admitted revision.
"""

from __future__ import annotations

import dataclasses
import math
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import (
    budgets,
    complaints,
    deployment_config,
    engine_environment,
    engine_kinds,
    errors,
    hardware,
    instance_types,
    lora,
    members,
    observation,
    placement,
    planning,
    records,
    routes,
    vllm_flags,
)
from cluster import spec as specs
from cluster.model_facts import Facts
from cluster.settings import Settings

SLOW_TO_IMPORT = frozenset(variant for variant, engine in engine_kinds.OF_VARIANT.items() if engine == "llm")
"""Image variants whose engine a node can be prepared for (see deployments.preparation)."""
LORA_ENGINES = frozenset({"llm", "echo"})
DEFAULT_TASK = "text-generation"
DEFAULT_CONCURRENCY = 16.0
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
    members: Mapping[str, specs.Placement] = dataclasses.field(default_factory=dict)
    """What one replica of each member claims of `placement`; {} without members."""
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
    parts = members.parts(spec.model)
    for part in parts:
        with part.blamed():
            _check_engine(part, settings)
    if engine_kinds.of(parts[0].model) not in engine_kinds.PROGRAMS:
        _check_default_route(spec)
    if not cluster.nodes:
        raise errors.Unavailable("The cluster's hardware has not been seen yet: try again in a moment.", retry_after=2)
    rows = hardware.instances(cluster, catalogue)
    _check_instance(spec.compute, rows, present)
    spec = _with_adapters(spec, engine_kinds.of(spec.model), settings)
    claim = placement.of(spec.compute, rows)
    programs = all(engine_kinds.of(part.model) in engine_kinds.PROGRAMS for part in parts)
    engine_environment.check(spec.model.secrets, "model.secrets", program=programs)
    engine_environment.check(spec.model.secret_refs, "model.secretRefs", program=programs)
    shares = members.placements(spec.model, spec.compute, rows)
    for part in members.parts(spec.model):
        with part.blamed():
            check_repository(source or part.model if not part.name else part.model, engine_kinds.of(part.model), settings)
            _check_model(part.model, shares.get(part.name, claim))
    warnings = _member_warnings(spec.compute, shares, rows) if shares else _hardware_warnings(spec.compute, claim, rows)
    unpriced = budgets.of_endpoint(spec.limits, spec.compute, catalogue)
    return Admitted(spec, claim, (*warnings, *_warnings(spec), *unpriced), shares, source)


def _check_engine(part: members.Part, settings: Settings) -> None:
    engine = engine_kinds.of(part.model)
    if part.name and engine in engine_kinds.PROGRAMS:
        raise errors.InvalidRequest("a server of your own cannot be a member: make it an endpoint of its own", param="model.image")
    _check_program(part.model, engine, settings)


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


WORKED_OUT = frozenset({"placement", "placements", "source", "advice"})
"""Fields of a revision that follow from the others at the moment when it is made."""


def revision_fields(admitted: Admitted) -> dict[str, Any]:
    """What is stored of a revision: what the user said of it, and what was worked out once, so that a node that comes or goes,
    or a registry that changes, never changes a running revision."""
    fields = {**admitted.spec.revision_fields(), "placement": admitted.placement.model_dump(mode="json")}
    if admitted.members:
        fields["placements"] = {name: claim.model_dump(mode="json") for name, claim in admitted.members.items()}
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
    engine = engine_kinds.of(typed)
    _check_program(typed, engine, settings)
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
        engine=engine,
        model=model,
        task=engine_kinds.task(typed) or DEFAULT_TASK,
        placement=claim,
        scaling=endpoint.parsed.compute.scaling.wire(),
        drain_timeout_s=settings.drain_timeout_s,
        load_timeout_s=settings.load_timeout_s,
    )


def deploy(
    endpoint: records.Endpoint, revision: records.Revision, instances: Sequence[hardware.Instance], settings: Settings
) -> observation.Deploy:
    """What Serve is to run for a revision: one deployment, or one for each member."""
    scaling = endpoint.parsed.compute.scaling
    whole = observation.Deploy(
        spec=replica_spec(endpoint, revision, instances, settings),
        minimum=max(1, scaling.min_replica),
        maximum=scaling.max_replica,
        target_concurrency=scaling.target_concurrency or (scaling.measure or {}).get("pendingRequests") or DEFAULT_CONCURRENCY,
        restarts=endpoint.restarts if revision.number in {endpoint.serving, endpoint.target} else 0,
    )
    if not whole.spec.model.get("members"):
        return whole
    model = whole.spec.typed_model
    stored = revision.fields.get("placements") or {}
    claims = {name: specs.Placement.model_validate(claim) for name, claim in stored.items()}
    if not claims:
        claims = members.placements(model, specs.Compute.model_validate(revision.fields.get("compute", {}), extra="ignore"), instances)
    engines = {part.name: engine_kinds.of(part.model) for part in members.parts(model)}
    return members.spread(whole, engines, claims, endpoint.parsed.model)


def _check_model(model: specs.Model, claim: specs.Placement) -> None:
    engine = engine_kinds.of(model)
    engine_environment.check(model.env, "model.env", program=engine in engine_kinds.PROGRAMS)
    if engine == "text_to_image" and claim.gpus > 1:
        raise errors.InvalidRequest("This engine uses one GPU: choose x1, and more replicas.", param="compute.instanceSize")
    if engine == "llm":
        vllm_flags.check(model, claim)
        _check_spread(model, claim)


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


def _check_default_route(spec: specs.EndpointSpec) -> None:
    given, param = (
        (spec.route.default, "route.default") if spec.route.default else (spec.model.env.get(routes.PREDICT_VARIABLE), "model.env")
    )
    if given and not routes.is_default_route(given):
        raise errors.InvalidRequest(
            f"{given[:60]!r} is no route that requests can be sent to: name one such as /v1/chat/completions or /v1/completions.",
            param=param,
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


def _check_program(model: specs.Model, engine: str, settings: Settings) -> None:
    """Whether this program may run here. Asked again at each start: the operator may have changed their mind."""
    if engine == "container" and not settings.allow_containers:
        raise errors.InvalidRequest(
            "Containers are switched off here. The operator switches them on by MOORAGE_ALLOW_CONTAINERS=1.", param="model.image.custom"
        )
    if engine == "container":
        engine_environment.check(model.image.custom.env if model.image.custom else (), "model.image.custom.env", program=True)
    if engine != "command":
        return
    if not settings.allow_commands:
        raise errors.InvalidRequest(
            "Commands are switched off here, since they run any program on the cluster's nodes. The operator switches them on by"
            " MOORAGE_ALLOW_COMMANDS=1.",
            param="model.image.command",
        )
    if not model.command:
        raise errors.InvalidRequest(
            'model.command is missing: name the program and its words, as in ["python", "server.py", "--port", "{port}"].',
            param="model.command",
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


def check_repository(model: specs.Model, engine: str, settings: Settings) -> None:
    """Raises InvalidRequest where no model can lie, or may be taken from."""
    repository = model.repository
    if not engine_kinds.needs_model(engine, model):
        return
    if not repository:
        raise _refused("model.repository is missing: name a Hugging Face repository, s3://bucket/prefix or an absolute path.")
    _check_source(repository, settings)


def _check_source(repository: str, settings: Settings) -> None:
    if repository.startswith("/"):
        _check_path(repository, settings)
    elif repository.startswith("s3://"):
        _check_bucket(repository)
    elif repository.startswith("model://"):
        raise _refused("A registered model lies somewhere: name that Hugging Face repository, s3://bucket/prefix or path.")
    elif not HUB_ID.fullmatch(repository) or "--" in repository or ".." in repository or repository.endswith((".git", ".", "-")):
        raise _refused("That is no repository id of the Hugging Face Hub (organisation/model), no s3://bucket/prefix and no absolute path.")


def _with_adapters(spec: specs.EndpointSpec, engine: str, settings: Settings) -> specs.EndpointSpec:
    """`spec` with what its adapters need of the engine. Raises InvalidRequest naming the adapter that cannot be."""
    if not spec.model.adapters:
        return spec
    if engine not in LORA_ENGINES:
        raise errors.InvalidRequest("Adapters need an engine that can load them: vLLM.", param="model.adapters")
    model = lora.switched_on(spec.model)
    for number, adapter in enumerate(model.adapters):
        where = f"model.adapters.{number}"
        try:
            _check_source(adapter.repository, settings)
            _check_adapter(adapter, model, settings)
        except errors.InvalidRequest as exc:
            raise errors.InvalidRequest(exc.message, param=f"{where}.repository") from None
    return spec.model_copy(update={"model": model})


def _check_adapter(adapter: specs.Adapter, model: specs.Model, settings: Settings) -> None:
    """What can be told without a download: of a folder that this machine has. Others are looked at where they are loaded."""
    if not adapter.repository.startswith("/"):
        return
    folder = Path(adapter.repository).resolve()
    inside = any(folder.is_relative_to(Path(root).resolve()) for root in _allowed_folders(settings))
    if inside and folder.is_dir():
        lora.check_folder(adapter.name, folder, lora.max_rank(model))


def _allowed_folders(settings: Settings) -> list[str]:
    store = [settings.model_store] if settings.model_store.startswith("/") else []
    return [folder for folder in settings.model_paths.split(":") if folder] + store + [str(settings.model_cache)]


def _check_path(path: str, settings: Settings) -> None:
    inside = any(path.startswith(posixpath.normpath(folder).rstrip("/") + "/") for folder in _allowed_folders(settings))
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


def _member_warnings(compute: specs.Compute, shares: Mapping[str, specs.Placement], rows: Sequence[hardware.Instance]) -> list[str]:
    """Of the member that needs most; its replicas need not be on the node where another member's are."""
    largest = max(shares.values(), key=lambda claim: (claim.gpus, claim.cpus))
    size = f"x{largest.gpus or math.ceil(largest.cpus)}"
    return _hardware_warnings(compute.model_copy(update={"instance_size": size}), largest, rows)


def _warnings(spec: specs.EndpointSpec) -> list[str]:
    found = []
    if spec.cache_http_responses:
        found.append("cacheHttpResponses has no effect here: answers are not cached.")
    if spec.experimental_features:
        found.append("experimentalFeatures has no effect here.")
    return found
