"""What a user may write about an endpoint: Hugging Face's Inference Endpoint resource with Moorage's fields beside it.

The models here are frozen and refuse unknown fields; what is read back from the store goes through `stored`, which is
lenient. `ReplicaSpec` is what a revision hands to its replicas.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator
from pydantic.alias_generators import to_camel

from cluster import engine_settings, images, redaction
from cluster.limits import Limits
from cluster.resource import Resource

NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{2,30})[a-z0-9]"
TENANT_PATTERN = r"(?!.*--)[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
"""Of tenants and of namespaces. Two hyphens in a row end a namespace in the names of applications."""
RESERVED_NAMES = frozenset({"manage", "console", "health", "metrics", "models", "async", "endpoints"})
REGISTRY_SECRETS = ("REGISTRY_USERNAME", "REGISTRY_PASSWORD")
"""The secrets with which a container image is pulled."""
REGISTRY_SERVER = "REGISTRY_SERVER"
"""Where alone they are sent, when they come of an integration."""
ADAPTER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
BASE_NAMES = frozenset({"tgi", "odsc-llm", "odsc-vllm"})
"""What clients of other platforms send as `model` when they mean the endpoint's own model."""
MEMBER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
MOST_MEMBERS = 32


class Scaling(Resource):
    """How many replicas. `scale_to_zero_timeout` is in minutes (fractions allowed), None = never."""

    min_replica: int = Field(1, ge=0, le=512)
    max_replica: int = Field(1, ge=1, le=512)
    scale_to_zero_timeout: float | None = Field(None, gt=0, le=525_600)
    measure: dict[Literal["pendingRequests", "hardwareUsage"], float | None] | None = None
    target_concurrency: float | None = Field(None, gt=0)
    """Running plus waiting requests that one replica should have before another is started."""
    max_queue: int | None = Field(None, ge=0)
    """Requests that may wait at one gateway, while the endpoint starts or while its replicas are busy."""
    start_at_zero: bool = False
    """Be created without a replica: the first request starts one. Needs min_replica 0."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start_at_zero and self.min_replica > 0:
            raise ValueError("startAtZero needs minReplica 0")
        if self.min_replica > self.max_replica:
            raise ValueError(f"minReplica ({self.min_replica}) is over maxReplica ({self.max_replica}): lower the one or raise the other")
        return self


class Compute(Resource):
    """Hardware of one replica (an instance type and size of GET /provider) and how replicas scale."""

    accelerator: str = "cpu"
    instance_type: str = "local-cpu"
    instance_size: str = "x1"
    scaling: Scaling = Scaling()
    plan: Literal["hourly", "committed"] = "hourly"

    @model_validator(mode="after")
    def _committed_never_zero(self) -> Self:
        if self.plan == "committed" and self.scaling.min_replica < 1:
            raise ValueError("a committed plan keeps at least one replica: set minReplica to 1 or more, or plan to hourly")
        return self


Integrations = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    PlainSerializer(lambda value: value[0] if len(value) == 1 else list(value), return_type=str | list[str]),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 3}]}),
]
"""Names of the namespace's integrations, at most one of each kind: the credentials that its source is asked with. One may be written
without the list."""
NO_INTEGRATION: Any = Field((), max_length=3, exclude_if=lambda value: not value)


class Adapter(Resource):
    """A LoRA adapter of the endpoint's model. `repository` as of a model; `name` is what clients send as `model`."""

    name: str = Field(min_length=1, max_length=32)
    repository: str = Field(min_length=1, max_length=1024)
    revision: str | None = None
    integration: Integrations = NO_INTEGRATION

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(ADAPTER_NAME, value):
            raise ValueError("an adapter's name is 1 to 32 letters, digits, dots, hyphens and underscores, the first a letter or digit")
        if value in BASE_NAMES:
            raise ValueError(f"{value!r} means the endpoint's own model to clients of other platforms: choose another name")
        return value


class ModelSource(Resource):
    """One model and its engine. `repository`: Hub id, s3://bucket/prefix, or an absolute path the operator allows."""

    repository: str = Field("", max_length=1024)
    revision: str | None = None
    task: str | None = None
    image: images.Image = images.Image(huggingface=images.OpenImage())
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    """Engine flags as on its command line: `--name`, `value`; a flag without a value stands alone or with ''."""
    env: dict[str, str] = {}
    integration: Integrations = NO_INTEGRATION
    settings: engine_settings.ModelSettings = engine_settings.ModelSettings()

    @field_validator("args", "command", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """Accepts words, and (name, value) pairs as lists or {"name", "value"} objects."""
        if not isinstance(value, list | tuple):
            return value
        words: list[Any] = []
        for item in value:
            if isinstance(item, dict) and set(item) <= {"name", "value"} and "name" in item:
                words += [item["name"], *([item["value"]] if item.get("value") not in (None, "") else [])]
            elif isinstance(item, list | tuple) and len(item) == 2:
                words += [item[0], *([item[1]] if item[1] not in (None, "") else [])]
            else:
                words.append(item)
        return [word for word in words if word != ""]

    @field_validator("env", "secrets", "secret_refs", check_fields=False)
    @classmethod
    def _environment_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
                raise ValueError(f"{name!r} is not a name of an environment variable (letters, digits and _, not starting with a digit)")
        return value


class MemberScaling(Resource):
    """A member's own numbers; what is left out is the endpoint's. To zero goes the whole endpoint, never one member."""

    min_replica: int | None = Field(None, ge=1, le=512)
    max_replica: int | None = Field(None, ge=1, le=512)
    target_concurrency: float | None = Field(None, gt=0)


class Member(ModelSource):
    """One of several models of an endpoint, with replicas of its own; chosen per request by its name."""

    name: str
    gpus: int | None = Field(None, ge=1, le=512)
    """Accelerators of each replica, a power of two. None = its share of the instance (see cluster.allocation)."""
    scaling: MemberScaling = MemberScaling()
    primary: bool = False
    """Answers what names no member, and gets the largest share of the instance."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(MEMBER_NAME, value):
            raise ValueError(
                "a member's name is 1 to 32 letters, digits, '.', '_' and '-', and begins with a letter or digit: "
                "clients write it as `model`, so it has no '/' and no ':'"
            )
        if value in BASE_NAMES:
            raise ValueError(f"{value!r} means the endpoint's own model to clients of other platforms: choose another name")
        return value

    @field_validator("gpus")
    @classmethod
    def _power_of_two(cls, value: int | None) -> int | None:
        if value is not None and value & (value - 1):
            raise ValueError(f"{value} is no power of two: give 1, 2, 4, 8 and so on, or leave it out")
        return value

    @property
    def source(self) -> Model:
        """The member as the plain model that its replicas serve."""
        return Model(**{name: getattr(self, name) for name in ModelSource.model_fields})


class Model(ModelSource):
    """What is served and by which engine: one model, or several as `members`, which then say everything but the secrets."""

    framework: str = "pytorch"
    secrets: dict[str, str] = Field(default={}, repr=False)
    """Secret environment of the engine and its model source (HF_TOKEN, AWS_SECRET_ACCESS_KEY, ...). Never returned."""
    secret_refs: dict[str, str] = Field(default={}, exclude_if=lambda value: not value)
    """Further secret environment: variable -> name of a secret of the namespace (`/manage/v2/secrets`)."""
    members: tuple[Member, ...] = Field((), max_length=MOST_MEMBERS, exclude_if=lambda value: not value)
    primary_member: str | None = Field(None, exclude_if=lambda value: value is None)
    """The member that answers what names none. None = the one marked `primary`, else the first."""
    adapters: tuple[Adapter, ...] = Field((), max_length=256)
    """LoRA adapters, each callable by its name. Not part of a revision: they come and go while replicas run."""

    @field_validator("adapters")
    @classmethod
    def _names_once(cls, value: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
        names = [adapter.name for adapter in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"there are two adapters called {twice!r}: give each a name of its own")
        return value

    @model_validator(mode="before")
    @classmethod
    def _credentials_are_secrets(cls, value: Any) -> Any:
        """`image.custom.credentials`, as Hugging Face's client sends them, become secrets: sealed, and never returned."""
        image = value.get("image") if isinstance(value, dict) else None
        if not isinstance(image, dict) or not isinstance(custom := image.get("custom"), dict) or custom.get("credentials") is None:
            return value
        given = custom["credentials"]
        words = (given.get("username"), given.get("password") or "") if isinstance(given, dict) else ()
        if not all(isinstance(word, str) for word in words) or not words or not words[0] or set(given) - {"username", "password"}:
            raise ValueError("image.custom.credentials are a username and a password, both text")
        kept = {name: field for name, field in custom.items() if name != "credentials"}
        secrets = {name: word for name, word in zip(REGISTRY_SECRETS, words, strict=True) if word}
        return {**value, "image": {**image, "custom": kept}, "secrets": {**(value.get("secrets") or {}), **secrets}}

    @field_validator("members")
    @classmethod
    def _several(cls, value: tuple[Member, ...]) -> tuple[Member, ...]:
        names = [member.name for member in value]
        if len(names) == 1:
            raise ValueError("an endpoint has at least two members: a single one is a plain model (model.repository)")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two members are called {name!r}: a member's name is its own within the endpoint")
        return value

    @model_validator(mode="after")
    def _members_or_one_model(self) -> Self:
        if not self.members:
            if self.primary_member is not None:
                raise ValueError("primaryMember names one of model.members, and there are none")
            return self
        if self.adapters:
            raise ValueError("adapters are of one model: an endpoint with members has none")
        plain = Model(image=self.image) if self.image.huggingface is not None else Model()
        for name in ModelSource.model_fields:
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(
                    f"an endpoint has either members or a model of its own: say {to_camel(name)} in each member, not beside them"
                )
        marked = {member.name for member in self.members if member.primary} | {name for name in (self.primary_member,) if name}
        if len(marked) > 1:
            raise ValueError(f"one member can be the primary one, not {' and '.join(sorted(marked))}")
        if marked - {member.name for member in self.members}:
            raise ValueError(f"primaryMember {self.primary_member!r} is none of the members {', '.join(self.member_names)}")
        return self

    @property
    def chosen_primary(self) -> str | None:
        """The member that was said to be the primary one; None when nobody said."""
        return self.primary_member or next((member.name for member in self.members if member.primary), None)

    @property
    def member_names(self) -> tuple[str, ...]:
        """The primary one first, else in their order; empty for a plain model."""
        names = [member.name for member in self.members]
        return tuple(sorted(names, key=lambda name: name != self.chosen_primary))


class Provider(Resource):
    """Where: one's own cluster is vendor and region `local`."""

    vendor: str = "local"
    region: str = "local"


class Route(Resource):
    """`default`: where POST .../predict goes. `domain` and `path` are accepted from Hugging Face's client and must be empty."""

    default: str | None = Field(None, pattern=r"^/[A-Za-z0-9/_.-]{1,100}$")
    domain: str | None = None
    path: str | None = None


class RequestLog(Resource):
    """What the request log keeps beside the facts: prompts, and only where the endpoint asks for it."""

    prompts: bool = False
    """Keep what clients sent: messages, prompt, input."""
    answers: bool = False
    """Keep the text of the answers too. Needs `prompts`."""
    redact: tuple[str, ...] = Field((), max_length=redaction.MOST_PATTERNS)
    """Struck out before anything is kept: words of `cluster.redaction.WORDS`, and regular expressions with bounded repetitions."""
    ttl_days: float = Field(7.0, gt=0, le=365)
    """After so long they are deleted."""
    max_bytes: int = Field(16_384, ge=256, le=262_144)
    """Of a prompt and of an answer; longer ones are cut."""

    @field_validator("redact")
    @classmethod
    def _rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(redaction.check(rule) for rule in value))

    @model_validator(mode="after")
    def _answers_to_prompts(self) -> Self:
        if self.answers and not self.prompts:
            raise ValueError("answers are kept with their prompts: set prompts too")
        return self


class EndpointSpec(Resource):
    """An endpoint as created, and as PUT back in parts."""

    name: str = Field(min_length=4, max_length=32)
    type: Literal["public", "authenticated", "private"] = "authenticated"
    provider: Provider = Provider()
    compute: Compute = Compute()
    model: Model = Model()
    route: Route = Route()
    strategy: Literal["surge", "recreate"] = "surge"
    """How an update of the model or its engine goes: start the new revision first, or stop the old one first."""
    description: str = Field("", max_length=2000)
    tags: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = Field((), max_length=256)
    """Tenants whose platform keys may call it too; `*` = all of them. A private endpoint is shared with nobody."""
    networks: tuple[str, ...] = Field((), max_length=64)
    """Networks (CIDR) from which a private endpoint may be called, within those that the operator allows; empty = all of these."""
    limits: Limits = Limits()
    """Over all its callers together, beside the limits of their keys."""
    request_log: RequestLog = RequestLog()
    """Whether prompts are kept. Not part of a revision: replicas are told while they run."""
    private_service: dict[str, Any] | None = None
    cache_http_responses: bool | None = None
    experimental_features: dict[str, Any] | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(NAME_PATTERN, value):
            raise ValueError(
                "an endpoint name is 4 to 32 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen"
            )
        if value in RESERVED_NAMES:
            raise ValueError(f"{value!r} is a word of Moorage's own routes: choose another name")
        return value

    @field_validator("type", mode="before")
    @classmethod
    def _older_word(cls, value: Any) -> Any:
        return AUTHENTICATED if value == "protected" else value

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(ipaddress.ip_network(text, strict=False)) for text in value)
        except ValueError as exc:
            raise ValueError(f"{exc}: write a network like 10.1.0.0/16") from None

    @field_validator("shared_with")
    @classmethod
    def _tenants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not re.fullmatch(TENANT_PATTERN, name):
                raise ValueError(f"{name!r} is no tenant's name: lower-case letters, digits and hyphens, or * for all tenants")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _private_means_private(self) -> Self:
        if self.type == "private" and self.shared_with:
            raise ValueError("a private endpoint is shared with nobody: take back sharedWith, or make its type authenticated")
        if self.networks and self.type != "private":
            raise ValueError("networks are for private endpoints: set type to private, or leave networks out")
        return self

    @model_validator(mode="after")
    def _sleeps_before_zero(self) -> Self:
        sleep, zero = self.model.settings.system.sleep_timeout, self.compute.scaling.scale_to_zero_timeout
        if sleep is not None and zero is not None and self.compute.scaling.min_replica == 0 and sleep >= zero:
            raise ValueError(
                f"sleepTimeout ({sleep:g}) must be under scaleToZeroTimeout ({zero:g}): at zero there is nothing left to sleep"
            )
        return self

    @model_validator(mode="after")
    def _adapters_have_other_names(self) -> Self:
        if any(adapter.name == self.name for adapter in self.model.adapters):
            raise ValueError(f"an adapter cannot be called {self.name!r}: that is the endpoint's own name, which means its model")
        return self

    @model_validator(mode="after")
    def _members_have_names_of_their_own(self) -> Self:
        if self.name in self.model.member_names:
            raise ValueError(f"a member may not have the endpoint's own name {self.name!r}, which means the primary member")
        for member in self.model.members:
            scaling, own = self.compute.scaling, member.scaling
            least = own.min_replica or max(1, scaling.min_replica)
            if least > (own.max_replica or scaling.max_replica):
                raise ValueError(
                    f"member {member.name}: minReplica ({least}) is over maxReplica ({own.max_replica or scaling.max_replica})"
                )
        return self

    def revision_fields(self) -> dict[str, Any]:
        """What a revision consists of: a change here starts new replicas. Secret values are not part of it, their names are."""
        model = self.model.wire()
        model.pop("adapters")
        model["secrets"] = sorted(self.model.secrets)
        for member in model.get("members", ()):
            del member["scaling"]  # changes in place
        return {
            "model": model,
            "compute": {
                "accelerator": self.compute.accelerator,
                "instanceType": self.compute.instance_type,
                "instanceSize": self.compute.instance_size,
            },
        }


AUTHENTICATED = "authenticated"


class Placement(BaseModel):
    """What one replica claims from Ray. One bundle = one node; several bundles (one GPU each) may span nodes."""

    model_config = ConfigDict(frozen=True)

    cpus: float = 1
    gpus: int = 0
    """Accelerators of one replica in all."""
    accelerator_type: str | None = None
    """Ray's accelerator type (H200, ...), or None for any."""
    bundles: tuple[dict[str, float], ...] = ()
    strategy: Literal["STRICT_PACK", "PACK"] = "STRICT_PACK"


class ReplicaSpec(BaseModel):
    """Everything a replica needs to know to start its server, except secret values. Travels as a Serve init argument."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    application: str
    """Serve application: `<namespace>--<endpoint>--r<revision>`, or the user's name of a declarative one."""
    namespace: str
    endpoint: str
    member: str = ""
    """Which of the endpoint's members this is; '' = it has none."""
    revision: int
    engine: str
    """Key of deployments.engines.ENGINES: `llm`, `echo`, ..."""
    model: dict[str, Any]
    """`Model.wire()` without secret values."""
    task: str = "text-generation"
    placement: Placement = Placement()
    scaling: dict[str, Any] = {}
    """`Scaling.wire()`; not part of the version: it changes in place."""
    drain_timeout_s: float = 120.0
    load_timeout_s: float = 1800.0
    declarative: bool = False

    @property
    def typed_model(self) -> Model:
        """`model` as a typed object; the names of secrets are left out."""
        return Model.model_validate({**self.model, "secrets": {}})


def application_name(namespace: str, endpoint: str, revision: int) -> str:
    """The Serve application of one revision."""
    return f"{namespace}--{endpoint}--r{revision}"


def parse_application_name(application: str) -> tuple[str, str, int] | None:
    """(namespace, endpoint, revision) of one of our applications' names, else None."""
    match = re.fullmatch(r"(?P<namespace>[a-z0-9][a-z0-9-]*?)--(?P<endpoint>[a-z0-9][a-z0-9-]*)--r(?P<revision>[0-9]+)", application)
    return (match["namespace"], match["endpoint"], int(match["revision"])) if match else None


def suggest_name(repository: str) -> str:
    """A legal endpoint name made from a model id, path or bucket prefix."""
    last = repository.rstrip("/").rsplit("/", 1)[-1].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:28].strip("-")
    return name if len(name) >= 4 else f"{name}-model".strip("-")
