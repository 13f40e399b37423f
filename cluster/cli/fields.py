"""The options that describe an endpoint, declared once for `create` and `update`, and the request body they make."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cluster.cli import limits
from cluster.errors import InvalidRequest

ENGINE, HARDWARE, SCALING, ACCESS = "Model and engine", "Hardware", "Scaling", "Access and description"


@dataclasses.dataclass(frozen=True)
class Fields:
    """What was given on the command line; None or empty = not given."""

    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Hub id, s3://bucket/prefix, or an allowed absolute path.", rich_help_panel=ENGINE)
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model.", rich_help_panel=ENGINE)] = None
    task: Annotated[str | None, typer.Option(help="What the model is for, e.g. text-generation.", rich_help_panel=ENGINE)] = None
    engine: Annotated[str | None, typer.Option(help="vLLM, echo, tgi, ... (default: by the task)", rich_help_panel=ENGINE)] = None
    arg: Annotated[list[str] | None, typer.Option(help="An engine flag: --arg=--max-model-len=4096.", rich_help_panel=ENGINE)] = None
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the engine.", rich_help_panel=ENGINE)] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(help="NAME: value of that variable here; NAME=@FILE: the file's content.", rich_help_panel=ENGINE),
    ] = None
    secret_ref: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SECRET: the variable gets what `moorage secrets` keeps under that name.", rich_help_panel=ENGINE),
    ] = None
    integration: Annotated[
        list[str] | None, typer.Option(help="Credentials that `moorage integrations` keeps, by name.", rich_help_panel=ENGINE)
    ] = None
    member: Annotated[
        list[str] | None,
        typer.Option(
            help="One of several models: NAME=MODEL[,gpus=2][,primary][,task=...][,engine=...]. Given at least twice, instead of --model.",
            rich_help_panel=ENGINE,
        ),
    ] = None
    instance_type: Annotated[str | None, typer.Option(help="See `moorage hardware`.", rich_help_panel=HARDWARE)] = None
    instance_size: Annotated[str | None, typer.Option(help="x1, x2, x4, ...", rich_help_panel=HARDWARE)] = None
    accelerator: Annotated[str | None, typer.Option(help="cpu or gpu. (default: by the instance type)", rich_help_panel=HARDWARE)] = None
    min_replica: Annotated[int | None, typer.Option(help="Fewest replicas; 0 = may scale to zero.", rich_help_panel=SCALING)] = None
    max_replica: Annotated[int | None, typer.Option(help="Most replicas.", rich_help_panel=SCALING)] = None
    scale_to_zero_timeout: Annotated[
        str | None, typer.Option(help="Minutes without a request until zero, or never.", rich_help_panel=SCALING)
    ] = None
    target_concurrency: Annotated[
        float | None, typer.Option(help="Requests one replica should have before the next starts.", rich_help_panel=SCALING)
    ] = None
    max_queue: Annotated[int | None, typer.Option(help="Requests that wait, while it starts or is busy.", rich_help_panel=SCALING)] = None
    rpm: limits.Rpm = None
    tpm: limits.Tpm = None
    tpd: limits.Tpd = None
    concurrency: limits.Concurrency = None
    budget: limits.Budget = None
    budget_period: limits.BudgetPeriod = None
    type: Annotated[str | None, typer.Option(help="authenticated, public or private.", rich_help_panel=ACCESS)] = None
    description: Annotated[str | None, typer.Option(rich_help_panel=ACCESS)] = None
    tag: Annotated[list[str] | None, typer.Option(rich_help_panel=ACCESS)] = None
    strategy: Annotated[str | None, typer.Option(help="How updates go: surge or recreate.", rich_help_panel=ACCESS)] = None
    default_route: Annotated[str | None, typer.Option(help="Where POST .../predict goes.", rich_help_panel=ACCESS)] = None
    share_with: Annotated[
        list[str] | None,
        typer.Option(help="A tenant whose keys may call it too, * = all; repeatable, '' = nobody.", rich_help_panel=ACCESS),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(help="Any field of the API: --set model.settings.llm.dtype=float16.", rich_help_panel=ACCESS),
    ] = None


def taking_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter `fields: Fields` of a command by one option for each field."""
    hints = get_type_hints(command, include_extras=True)
    options = get_type_hints(Fields, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "fields":
            made = (
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint) for name, hint in options.items()
            )
            parameters += made
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name]))

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        fields = Fields(**{name: given.pop(name) for name in options})
        command(**given, fields=fields)

    signature = inspect.Signature(parameters)
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    del wrapper.__wrapped__
    return wrapper


def body(fields: Fields, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The wire form of what was given, and nothing else. Raises InvalidRequest for an option that cannot be read."""
    made = {
        "type": fields.type,
        "description": fields.description,
        "tags": fields.tag or None,
        "sharedWith": [tenant for tenant in fields.share_with if tenant] if fields.share_with else None,
        "strategy": fields.strategy,
        "limits": _some(limits.body(fields.rpm, fields.tpm, fields.tpd, fields.concurrency, fields.budget, fields.budget_period)),
        "route": _some({"default": fields.default_route}),
        "compute": _some(
            {
                "accelerator": fields.accelerator,
                "instanceType": fields.instance_type,
                "instanceSize": fields.instance_size,
                "scaling": _scaling(fields),
            }
        ),
        "model": _some(
            {
                "repository": fields.model,
                "revision": fields.revision,
                "task": fields.task,
                "image": {fields.engine: {}} if fields.engine else None,
                "args": _flags(fields.arg or ()) or None,
                "env": dict(_pair(text, "--env") for text in fields.env or ()) or None,
                "secrets": dict(_secret(text, environment) for text in fields.secret or ()) or None,
                "secretRefs": dict(_pair(text, "--secret-ref") for text in fields.secret_ref or ()) or None,
                "integration": fields.integration or None,
                "members": [_member(text) for text in fields.member or ()] or None,
            }
        ),
    }
    found = _some(made) or {}
    for text in fields.set or ():
        _assign(found, *_pair(text, "--set"))
    return found


def _scaling(fields: Fields) -> dict[str, Any] | None:
    found = _some(
        {
            "minReplica": fields.min_replica,
            "maxReplica": fields.max_replica,
            "targetConcurrency": fields.target_concurrency,
            "maxQueue": fields.max_queue,
        }
    )
    if fields.scale_to_zero_timeout is None:
        return found
    return (found or {}) | {"scaleToZeroTimeout": _minutes(fields.scale_to_zero_timeout)}


def _minutes(text: str) -> float | None:
    if text == "never":
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"--scale-to-zero-timeout is a number of minutes or the word never, not {text!r}.") from None


def _flags(given: Iterable[str]) -> list[str]:
    """`--name=value` as two words, which is how the API shows engine flags."""
    words: list[str] = []
    for text in given:
        name, sign, value = text.partition("=")
        words += [name, value] if sign and name.startswith("--") else [text]
    return words


def _member(text: str) -> dict[str, Any]:
    """`chat=org/model,gpus=2,primary` as an object of `model.members`. A model's name has no comma."""
    model, *words = text.split(",")
    name, repository = _pair(model, "--member")
    found: dict[str, Any] = {"name": name, **({"repository": repository} if repository else {})}
    for word in words:
        key, _, value = word.partition("=")
        if word == "primary":
            found["primary"] = True
        elif key == "gpus" and value.isdecimal():
            found["gpus"] = int(value)
        elif key == "task" and value:
            found["task"] = value
        elif key == "engine" and value:
            found["image"] = {value: {}}
        else:
            raise InvalidRequest(f"--member takes NAME=MODEL and then gpus=N, primary, task=T or engine=E, not {word!r}.")
    return found


def _secret(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Values are never words of the command line: those can be read by everyone on the machine."""
    name, sign, source = text.partition("=")
    if sign and source.startswith("@"):
        try:
            return name, Path(source[1:]).expanduser().read_text().strip()
        except OSError as exc:
            raise InvalidRequest(f"--secret {name}: {source[1:]} cannot be read ({exc.strerror}).") from exc
    if sign:
        raise InvalidRequest(
            f"--secret takes no value on the command line: set the variable {name} and say --secret {name}, or {name}=@FILE."
        )
    if name not in environment:
        raise InvalidRequest(f"--secret {name}: there is no variable {name} here.")
    return name, environment[name]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name):
        raise InvalidRequest(f"{option} takes NAME=VALUE, not {text!r}.")
    return name, value


def _assign(target: dict[str, Any], path: str, text: str) -> None:
    """A value is JSON where it can be read as such, else a string."""
    *parents, last = path.split(".")
    for part in parents:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise InvalidRequest(f"--set {path}: {part} is not an object.")
    try:
        target[last] = json.loads(text)
    except ValueError:
        target[last] = text


def _some(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Without what was not given; None when nothing was."""
    return {name: value for name, value in fields.items() if value is not None} or None
