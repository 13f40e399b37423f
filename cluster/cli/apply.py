"""`moorage apply -f FILE`: endpoints declared in YAML, one document each, in the words of the API.

A document is what POST takes (`name`, `model`, `compute`, ...), and may say a `namespace`. What a document leaves out of an
endpoint that exists stays as it is.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from cluster import errors
from cluster.cli import client, follow, output
from cluster.cli.endpoints import DryRun, Namespace, Timeout, needs, plan_sentence

app = typer.Typer(add_completion=False)


class BadFile(errors.MoorageError):
    """The file does not declare endpoints."""

    code = "bad_file"


@dataclasses.dataclass(frozen=True)
class Step:
    """What is to be done for one document, and the server's answer to a dry run of it."""

    path: str
    body: dict[str, Any]
    action: Literal["create", "update", "none"]
    plan: dict[str, Any]


@app.command()
def apply(
    ctx: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML; - reads standard input.", show_default=False)],
    yes: output.Yes = False,
    dry_run: DryRun = False,
    timeout: Timeout = 3600,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show what would change, ask, make it so and follow it until everything has settled."""
    documents = read(file)
    with client.connect(ctx.obj, namespace) as api:
        steps = [plan(api, document) for document in documents]
        if not as_json:
            show(steps)
        todo = [step for step in steps if step.action != "none"]
        if dry_run or not todo:
            _finish(steps, [], as_json)
            return
        if not yes:
            _ask(len(todo))
        for step in todo:
            _do(api, step)
        _finish(steps, [follow.until_settled(api, step.path, timeout) for step in todo], as_json)


def read(file: Path) -> list[dict[str, Any]]:
    """The documents of the file. Raises BadFile naming the document that is not an endpoint."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as exc:
        raise BadFile(f"{file} cannot be read: {exc.strerror}.") from exc
    except yaml.YAMLError as exc:
        raise BadFile(f"{file} is not YAML: {' '.join(str(exc).split())}") from exc
    names: set[tuple[Any, str]] = set()
    for number, document in enumerate(found, 1):
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise BadFile(f"Document {number} of {file} is not an endpoint: it needs at least `name` and `model`.")
        named = (document.get("namespace"), document["name"])
        if named in names:
            raise BadFile(f"{file} declares {document['name']} twice.")
        names.add(named)
    if not found:
        raise BadFile(f"{file} declares nothing.")
    return found


def plan(api: client.Client, document: dict[str, Any]) -> Step:
    """Ask the server what the document would do."""
    body = {key: value for key, value in document.items() if key != "namespace"}
    namespace = document.get("namespace")
    path = f"{namespace}/{body['name']}" if namespace else body["name"]
    try:
        api.call("GET", api.path(path))
    except client.ApiError as exc:
        if exc.status != 404:
            raise
        answer = api.call("POST", api.path(path).rpartition("/")[0], body, {"dryRun": "true"})
        return Step(path, body, "create", answer)
    changes = {key: value for key, value in body.items() if key != "name"}
    answer = api.call("PUT", api.path(path), changes, {"dryRun": "true"})
    # What a stored secret's value is cannot be seen: one that the file gives is written again.
    same = not answer["changes"] and not answer["newRevision"] and not _gives_secrets(body)
    return Step(path, changes, "none" if same else "update", answer)


def show(steps: list[Step]) -> None:
    """The plan as a table."""
    rows = [(step.path, step.action, _what(step), "; ".join(step.plan["warnings"])) for step in steps]
    output.show_table(("endpoint", "action", "what", "warnings"), rows)


def _what(step: Step) -> str:
    if step.action == "create":
        return f"one replica takes {needs(step.plan['placement'])}"
    changes = ", ".join(step.plan["changes"])
    return plan_sentence(step.plan) + (f": {changes}" if changes else "")


def _gives_secrets(body: dict[str, Any]) -> bool:
    model = body.get("model")
    given = model.get("secrets") if isinstance(model, dict) else None
    return isinstance(given, dict) and any(given.values())


def _do(api: client.Client, step: Step) -> None:
    if step.action == "create":
        api.call("POST", api.path(step.path).rpartition("/")[0], step.body)
    else:
        api.call("PUT", api.path(step.path), step.body)
    output.say(f"{step.path}: {step.action}d")


def _ask(count: int) -> None:
    """Without a person to answer, that is an error and not a yes."""
    if not sys.stdin.isatty():
        raise errors.InvalidRequest("There is nobody to ask: say --yes to apply, or --dry-run to only look.")
    typer.confirm(f"Apply {count} change{'s' if count != 1 else ''}?", abort=True, err=True)


def _finish(steps: list[Step], settled: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        plans = [{"endpoint": step.path, "action": step.action, "plan": step.plan} for step in steps]
        output.show_json({"plan": plans, "endpoints": settled})
        return
    for endpoint in settled:
        output.show_text(f"{endpoint['name']} is {endpoint['status']['state']}")
