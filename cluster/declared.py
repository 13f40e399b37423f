"""Endpoints that somebody declared in a Serve file: what their replicas tell of them becomes a row, which the API shows read-only.

And whose a Serve application is, declared or not.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import Any

from cluster import admission, control, errors, hardware, records
from cluster import spec as specs
from cluster.store.base import Store


def row_of(spec: specs.ReplicaSpec, application: str, now: float) -> tuple[records.Endpoint, dict[str, Any]]:
    """The row of an endpoint that somebody declared in a Serve file, and its revision's fields. Raises InvalidRequest."""
    if not re.fullmatch(specs.TENANT_PATTERN, spec.namespace):
        raise errors.InvalidRequest("A namespace is written in lower-case letters, digits and hyphens.", param="namespace")
    claim = spec.placement
    instance_type = hardware.gpu_type(claim.accelerator_type or "") if claim.gpus else hardware.CPU_TYPE
    compute = {"instanceType": instance_type, "instanceSize": f"x{claim.gpus or max(1, int(claim.cpus))}", "scaling": dict(spec.scaling)}
    model = {name: value for name, value in spec.model.items() if name != "secrets"}
    read = admission.read(admission.with_accelerator({"name": spec.endpoint, "model": model, "compute": compute}))
    row = records.Endpoint(
        secrets.token_hex(8),
        spec.namespace,
        spec.endpoint,
        {**control.split_secrets(read)[0], "application": application},
        1,
        source="declarative",
        created_at=now,
        updated_at=now,
        created_by="serve deploy",
    )
    return row, {**read.revision_fields(), "placement": claim.model_dump(mode="json")}


def endpoint_of(store: Store, application: str) -> records.Endpoint | None:
    """The endpoint whose application it is, declarative ones by the name their author gave.

    None where it is gone, also when there is a later one of its name: an application that still drains belongs to nobody.
    """
    parsed = specs.parse_application_name(application)
    if parsed is not None:
        namespace, name, number = parsed
        with contextlib.suppress(errors.NotFound):
            found = store.endpoint(namespace, name)
            if found.source != "declarative":
                return found if found.first_revision <= number else None
    declarative = (row for row in store.endpoints() if row.source == "declarative")
    return next((row for row in declarative if row.spec.get("application") == application), None)
