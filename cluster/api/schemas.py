"""The shapes of answers, for the API's description. `cluster.api.wire` makes them; a test holds the two together."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

Item = TypeVar("Item")


class Answer(BaseModel):
    """Base: camelCase, nothing that is not described."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Error(BaseModel):
    """What was wrong and what would be right. `param` is the dotted path of the field to blame."""

    error: str
    error_type: str
    param: str | None = None


class Person(Answer):
    """Who did something."""

    id: str
    name: str


class Adapter(Answer):
    """A LoRA adapter of an endpoint: `ready` when every ready replica has it; `reason` and `message` say why it failed."""

    name: str
    repository: str
    revision: str | None
    state: Literal["pending", "ready", "failed"]
    reason: str | None
    message: str
    ready_replica: int


class NewAdapter(Adapter):
    """The answer to adding an adapter."""

    warnings: list[str]


class MemberStatus(Answer):
    """One model of an endpoint that has several."""

    name: str
    state: Literal["pending", "initializing", "running", "paused", "failed", "scaledToZero"]
    ready_replica: int
    target_replica: int


class Status(Answer):
    """Derived from what is seen. `update` names a newer version of the endpoint's registered model.

    Times end in Z; `url` is null while paused; `progress` has bytes and total of a download.
    """

    state: Literal["pending", "initializing", "running", "updating", "updateFailed", "paused", "failed", "scaledToZero"]
    reason: str | None
    phase: str | None
    message: str
    url: str | None
    ready_replica: int
    target_replica: int
    revision: int | None
    target_revision: int
    needs: dict[str, Any] | None
    progress: dict[str, float]
    adapters: list[Adapter]
    members: list[MemberStatus]
    expected_seconds: float | None
    created_at: str
    updated_at: str
    created_by: Person
    updated_by: Person
    private: dict[str, Any] | None
    grafana: str | None
    """The dashboard, opened for this endpoint; null where the operator named no Grafana."""
    update_available: bool
    update: dict[str, Any] | None


class Endpoint(Answer):
    """Hugging Face's Endpoint object with Moorage's fields beside it. Of secrets only the names are shown."""

    id: str
    account_id: str
    name: str
    namespace: str
    type: Literal["public", "authenticated", "private"]
    description: str
    tags: list[str]
    shared_with: list[str]
    networks: list[str]
    request_log: dict[str, Any]
    limits: dict[str, Any]
    provider: dict[str, Any]
    compute: dict[str, Any]
    model: dict[str, Any]
    route: dict[str, Any]
    strategy: Literal["surge", "recreate"]
    health_route: str
    generation: int
    source: Literal["api", "declarative"]
    cache_http_responses: bool | None = None
    experimental_features: dict[str, Any] | None = None
    status: Status
    warnings: list[str] | None = None
    """Of a change: what its user should know."""


class FirstKey(Answer):
    """The endpoint's First Key: the only time that its text is shown."""

    id: str
    description: str
    key: str


class NewEndpoint(Endpoint):
    """The answer to a creation."""

    api_key: FirstKey
    warnings: list[str]


class Plan(Answer):
    """The answer of `dryRun=true`: what would be done. Nothing was changed."""

    dry_run: Literal[True]
    endpoint: dict[str, Any]
    placement: dict[str, Any]
    members: dict[str, dict[str, Any]]
    new_revision: bool
    changes: list[str]
    fits_now: bool
    warnings: list[str]
    cost: Cost
    fit: FitPlan | None


class Cost(Answer):
    """Of the replicas that run all the time (at least one counted), in the operator's currency; a month has 730 hours."""

    per_hour: float
    per_month: float
    replicas: int
    per_hour_at_most: float
    at_zero: bool


class FitModel(Answer):
    """What is known of the model without downloading it. Sizes in 10^9 bytes; `unknown` names what its configuration does not say."""

    repository: str
    version: str | None
    architecture: str | None
    parameters: int | None
    weight_files_gb: float | None
    model_size_gb: float | None
    quantization: str
    max_model_len: int | None
    kv_cache_bytes_per_token: int | None
    unknown: list[str]
    task: str | None


class InstanceFit(Answer):
    """How the model fits one instance. `fits` null = cannot be told; `kvCacheSizeGb` of one request of `maxModelLen` tokens;
    `batchSize` such requests at once, `shortBatchSize` of 4096 tokens; `ranking` among those that fit, 1 = best; `measured` when
    it was loaded there before.
    """

    instance_type: str
    instance_size: str
    fits: bool | None
    verdict: str
    remedies: list[str]
    model_size_gb: float
    kv_cache_size_gb: float
    total_gb: float
    memory_gb: float
    quantization: str
    max_model_len: int | None
    batch_size: int
    short_batch_size: int
    tensor_parallel_size: int
    data_parallel_size: int
    price_per_hour: float
    status: str
    measured: bool
    ranking: dict[str, int] | None


class FitPlan(Answer):
    """What fits where. `instance` is the endpoint's own; `instances` are all, the cheapest that fits first."""

    model: FitModel
    instance: InstanceFit | None
    instances: list[InstanceFit]


class Model(Answer):
    """A model of the registry. `task`, `architecture` and `repository` are those of its newest version; `usedBy` names the
    endpoints that run a version of it, null in lists."""

    name: str
    namespace: str
    description: str
    owner: str
    task: str | None
    architecture: str | None
    latest_version: int | None
    versions: list[int]
    repository: str | None
    used_by: list[str] | None
    created_at: str
    updated_at: str


class ModelVersion(Answer):
    """One version of a model, which never changes. `address` is what an endpoint's `model.repository` says for it."""

    name: str
    namespace: str
    version: int
    address: str
    repository: str
    revision: str | None
    task: str | None
    architecture: str | None
    description: str
    owner: str
    created_at: str


class Revision(Answer):
    """One immutable version of what replicas run."""

    revision: int
    status: Literal["serving", "target", "failed", "superseded"]
    reason: str | None
    message: str | None
    created_at: str
    created_by: str
    live_at: str | None
    failed_at: str | None
    model: dict[str, Any] | None
    compute: dict[str, Any] | None
    placement: dict[str, Any] | None


class Key(Answer):
    """An API key without its text. `lastUsedAt` is null until its first use."""

    id: str
    description: str
    status: Literal["active", "revoked"]
    first: bool
    owner: str
    requests_per_minute: int
    concurrency: int
    created_at: str
    updated_at: str
    last_used_at: str | None


class NewKey(Key):
    """The answer to making a key: the only time that its text is shown."""

    key: str


class Event(Answer):
    """Something that happened to an endpoint: a command, a phase, a failure with its reason."""

    id: int
    at: str
    kind: str
    level: Literal["info", "warning", "error"]
    message: str
    revision: int | None
    replica: str | None
    reason: str | None
    data: dict[str, Any]


class LogLine(Answer):
    """One line of a server's output. `follow=true` streams these, one JSON object per line."""

    at: str
    level: str
    replica: str
    text: str


class Page(Answer, Generic[Item]):
    """A list. `cursor` asks for the next page, null after the last."""

    items: list[Item]
    cursor: str | None


class Setting(Answer):
    """A typed setting of an engine. `flag` null: Moorage's own; `supported` false: the installed engine has no such flag."""

    group: str
    name: str
    flag: str | None
    kind: str | None
    choices: list[str]
    default: bool | int | float | str | None
    help: str
    supported: bool


class Instance(Answer):
    """One instance type and size. Counts are GPUs, or CPUs of `local-cpu`; `pricePerHour` in the operator's currency."""

    id: str
    accelerator: Literal["cpu", "gpu"]
    instance_type: str
    instance_size: str
    architecture: str
    num_accelerators: int
    num_cpus: int
    memory_gb: float
    gpu_memory_gb: int | None
    price_per_hour: float
    status: Literal["available", "low_availability", "not_available", "reserved", "deprecated"]
    quota: dict[str, int]
    total: float
    free: float
    free_on_best_node: float


class Region(Answer):
    """Part of a vendor."""

    name: str
    label: str
    status: str
    computes: list[Instance]


class Vendor(Answer):
    """`local`: this cluster."""

    name: str
    status: str
    regions: list[Region]


class Hardware(Answer):
    """What endpoints may ask for."""

    vendors: list[Vendor]


class Catalog(Answer):
    """Models with tested settings."""

    items: list[dict[str, Any]]


class Health(Answer):
    """`starting` until the manager has looked at the cluster once."""

    status: Literal["ok", "starting"]


class Nothing(Answer):
    """An empty object."""
