"""Endpoints declared in a Serve file (`serve deploy`): `import_path: deployments.declarative:build_endpoint`.

`args` are the endpoint's fields as in the management API, plus `namespace`. The manager discovers such applications and
shows them read-only; they are updated by Serve's own rules when the file is deployed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from cluster import autoscaling, engine_environment, engine_kinds, errors, lora, placement, replica_options, spec, vllm_flags
from deployments.replica import Replica

DEFAULT_CONCURRENCY = 16.0


def build_endpoint(args: Mapping[str, Any]) -> serve.Application:
    """The Serve application of the endpoint that `args` declares. Raises InvalidRequest, which Serve shows as the reason."""
    replica = replica_spec(args)
    wanted = spec.Scaling.model_validate(replica.scaling)
    fields = replica_options.scaling(wanted.min_replica, wanted.max_replica, wanted.target_concurrency or DEFAULT_CONCURRENCY)
    config = AutoscalingConfig(policy=AutoscalingPolicy(policy_function=autoscaling.policy), **fields)
    options = {**replica_options.options(replica), "autoscaling_config": config}
    return serve.deployment(Replica).options(_internal=True, **options).bind(replica.model_dump(mode="json"))


def replica_spec(args: Mapping[str, Any]) -> spec.ReplicaSpec:
    """What a replica of the declared endpoint needs to know. Raises InvalidRequest."""
    fields = dict(args)
    namespace = fields.pop("namespace", None)
    if not isinstance(namespace, str) or not namespace:
        raise errors.InvalidRequest("args need the namespace that the endpoint belongs to", param="namespace")
    try:
        declared = spec.EndpointSpec.model_validate(fields, by_alias=True, by_name=False)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise errors.InvalidRequest(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if declared.model.secrets:
        raise errors.InvalidRequest(
            "a Serve file is no place for secrets: everyone who sees the cluster can read it", param="model.secrets"
        )
    if declared.model.members:
        raise errors.InvalidRequest(
            "an endpoint of a Serve file has one model: make one with members by `moorage apply` or over the API", param="model.members"
        )
    declared = declared.model_copy(update={"model": lora.switched_on(declared.model)})
    engine = engine_kinds.of(declared.model)
    engine_environment.check(declared.model.env, program=engine in engine_kinds.PROGRAMS)
    claim = placement.of(declared.compute, ())
    if engine == "llm":
        vllm_flags.check(declared.model, claim)
    return spec.ReplicaSpec(
        application="",  # the file's author names it; the replica is told by Serve
        namespace=namespace,
        endpoint=declared.name,
        revision=1,
        engine=engine,
        model=declared.model.wire(),
        task=engine_kinds.task(declared.model) or "text-generation",
        placement=claim,
        scaling=declared.compute.scaling.wire(),
        declarative=True,
    )
