"""`moorage models ...`: the registry, pushing a folder into the store of models, and bringing endpoints to a new version."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cluster import errors, registry
from cluster.cli import client, output, pushing
from cluster.cli.endpoints import Namespace
from cluster.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Register models with versions, push folders, and update the endpoints that run them.")

Name = Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.", show_default=False)]
Version = Annotated[int | None, typer.Option("--version", help="(default: the next number)", show_default=False)]
Task = Annotated[str | None, typer.Option(help="(default: told by the repository)", show_default=False)]
Description = Annotated[str | None, typer.Option(show_default=False)]


@app.command("ls")
def list_(
    ctx: typer.Context,
    task: Annotated[str | None, typer.Option(help="Only models for this task.", show_default=False)] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this owner.", show_default=False)] = None,
    search: Annotated[str | None, typer.Option(help="Part of the name, description or repository.", show_default=False)] = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """List the models of the registry."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(_path(api), task=task, architecture=architecture, owner=owner, search=search)
    columns, empty = ("name", "version", "task", "architecture", "owner", "age"), "No models yet: `moorage models register`."
    output.show_items(found, as_json, columns, _cells, empty)


@app.command()
def describe(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show a model, its versions and the endpoints that run it."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("GET", _path(api, name))
        versions = api.items(_path(api, name, "/versions"))
    if as_json:
        output.show_json({**found, "versions": versions})
        return
    shown = ("name", "description", "owner", "task", "architecture")
    output.show_fields({field: found[field] for field in shown} | {"used by": ", ".join(found["usedBy"] or ())})
    rows = [(row["version"], row["repository"], row["revision"], row["task"], output.age(row["createdAt"])) for row in versions]
    output.show_table(("version", "repository", "revision", "task", "age"), rows)


@app.command()
def register(
    ctx: typer.Context,
    name: Name,
    repository: Annotated[str, typer.Argument(help="Hub id, s3://bucket/prefix, or an allowed absolute path.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; pinned to the commit it is now.", show_default=False)] = None,
    version: Version = None,
    task: Task = None,
    description: Description = None,
    secret: Annotated[list[str] | None, typer.Option(help="NAME of a variable to read the repository with.", show_default=False)] = None,
    integration: Annotated[
        list[str] | None, typer.Option(help="Credentials to read it with that `moorage integrations` keeps, by name.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Register a model, or another version of one."""
    given: dict[str, Any] = {
        "repository": repository,
        "revision": revision,
        "version": version,
        "task": task,
        "description": description,
        "integration": integration or None,
    }
    secrets = {one: _variable(one, os.environ) for one in secret or ()}
    body = {key: value for key, value in given.items() if value is not None} | ({"secrets": secrets} if secrets else {})
    with client.connect(ctx.obj, namespace) as api:
        show_version(_register(api, name, body), as_json)


@app.command()
def push(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder with a model.", show_default=False)],
    name: Name,
    version: Version = None,
    task: Task = None,
    description: Description = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Upload a folder to MOORAGE_MODEL_STORE and register it. What was uploaded before is not uploaded again."""
    store = pushing.open_store(Settings().model_store)
    with client.connect(ctx.obj, namespace) as api:
        home, _, short = name.rpartition("/")
        with Bar("Reading") as bar:
            files = pushing.files_of(folder, bar.advance)
        place = pushing.place_of(home or api.namespace, short, files)
        with Bar("Uploading", sum(file.size for file in files)) as bar:
            repository = pushing.push(store, place, files, bar.began, bar.advance)
        given = {"repository": repository, "version": version, "task": task, "description": description}
        show_version(_register(api, name, {key: value for key, value in given.items() if value is not None}), as_json)


@app.command()
def rm(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="Only this version.", show_default=False)] = None,
    yes: output.Yes = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Forget a model, or one version of it, that no endpoint uses. Its files stay where they are."""
    what = f"version {version} of {name}" if version else f"{name} with all versions"
    output.confirm(f"Forget {what}?", yes)
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", _path(api, name, f"/versions/{version}" if version else ""))
    output.show_done({"deleted": name, "version": version}, f"Forgot {what}.", as_json)


@app.command("update-endpoints")
def update_endpoints(
    ctx: typer.Context,
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which they are and change nothing.")] = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Bring every endpoint of the namespace that runs an older version of this model to the newest one."""
    with client.connect(ctx.obj, namespace) as api:
        home, _, short = name.rpartition("/")
        found = [item for item in api.items(api.path()) if item["status"]["updateAvailable"] and _runs(item, home or api.namespace, short)]
        if not dry_run:
            for item in found:
                api.call(
                    "PUT", api.path(f"{item['namespace']}/{item['name']}"), {"model": {"repository": item["status"]["update"]["model"]}}
                )
    if as_json:
        output.show_json([{"name": item["name"], "model": item["status"]["update"]["model"]} for item in found])
        return
    rows = [(item["name"], item["model"]["repository"], item["status"]["update"]["model"]) for item in found]
    output.show_table(("endpoint", "from", "to"), rows, f"Every endpoint that runs {name} has its newest version.")


def show_version(row: dict[str, Any], as_json: bool) -> None:
    """A version that was registered."""
    if as_json:
        output.show_json(row)
        return
    shown = ("name", "version", "repository", "revision", "task", "architecture")
    output.show_fields({field: row[field] for field in shown} | {"use it as": row["address"]})


class Bar:
    """Progress: a bar on a terminal, a line per file in a pipe."""

    def __init__(self, verb: str, total: int | None = None) -> None:
        self._verb = verb
        columns = (TextColumn(verb), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._terminal = sys.stderr.isatty()
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not self._terminal)
        self._task = self._progress.add_task(verb, total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self._progress.advance(self._task, count)

    def began(self, file: pushing.File, present: bool) -> None:
        """A file comes next."""
        if not self._terminal:
            output.say(f"{file.path}: {'there already' if present else self._verb.lower()} ({output.size(file.size)})")


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    return item["name"], item["latestVersion"], item["task"], item["architecture"], item["owner"], output.age(item["updatedAt"])


def _register(api: client.Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
    home, _, short = name.rpartition("/")
    answer: dict[str, Any] = api.call("POST", f"/manage/v2/models/{home or api.namespace}", {"name": short, **body})
    return answer


def _runs(item: dict[str, Any], namespace: str, name: str) -> bool:
    address = registry.parse(item["model"]["repository"], item["namespace"])
    return (address.namespace, address.name) == (namespace, name)


def _path(api: client.Client, name: str = "", rest: str = "") -> str:
    home, _, short = name.rpartition("/")
    return f"/manage/v2/models/{home or api.namespace}" + (f"/{short}" if short else "") + rest


def _variable(name: str, environment: Mapping[str, str]) -> str:
    if name not in environment:
        raise errors.InvalidRequest(f"--secret {name}: there is no variable {name} here.")
    return environment[name]
