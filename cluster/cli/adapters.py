"""`moorage adapters ...`: the LoRA adapters of an endpoint."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cluster import errors
from cluster.cli import client, output
from cluster.cli.endpoints import Name, Namespace, Timeout

app = typer.Typer(no_args_is_help=True, help="The LoRA adapters of an endpoint: added and removed while it serves.")

AdapterName = Annotated[str, typer.Argument(metavar="ADAPTER", help="What clients send as `model`.", show_default=False)]
Repository = Annotated[
    str, typer.Argument(metavar="REPOSITORY", help="Hub id, s3://bucket/prefix, or an allowed absolute path.", show_default=False)
]
POLL_S = 0.5


class AdapterFailed(errors.MoorageError):
    """The adapter could not be loaded."""

    code = "adapter_failed"


@app.command("ls")
def list_(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the adapters of an endpoint and what became of each."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("GET", api.path(name, "/adapters"))["items"]
    columns, empty = ("name", "state", "replicas", "from", "message"), "There are no adapters: `moorage adapters add`."
    output.show_items(
        found, as_json, columns, lambda item: (item["name"], item["state"], item["readyReplica"], _source(item), item["message"]), empty
    )


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    adapter: AdapterName,
    repository: Repository,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the adapter.", show_default=False)] = None,
    integration: Annotated[
        list[str] | None, typer.Option(help="Credentials that `moorage integrations` keeps, by name.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is loaded. The exit code is 1 when it failed.")] = False,
    timeout: Timeout = 3600,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Add an adapter; running requests do not notice."""
    given = {"name": adapter, "repository": repository, "revision": revision, "integration": integration}
    body = {name: value for name, value in given.items() if value}
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, "/adapters"), body)
        for warning in made["warnings"]:
            output.say(warning)
        if wait:
            made = _until_settled(api, name, adapter, timeout)
    _show(made, as_json)


@app.command()
def remove(ctx: typer.Context, name: Name, adapter: AdapterName, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Remove an adapter: new requests for it are refused, answers that it has begun go on."""
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", api.path(name, f"/adapters/{adapter}"))
    output.show_done({"removed": adapter}, f"Adapter {adapter} of {name} is removed.", as_json)


def _until_settled(api: client.Client, name: str, adapter: str, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        found: dict[str, Any] = api.call("GET", api.path(name, f"/adapters/{adapter}"))
        if found["state"] == "ready":
            return found
        if found["state"] == "failed":
            raise AdapterFailed(found["message"])
        if time.monotonic() > deadline:
            raise AdapterFailed(f"The adapter {adapter} is still not loaded after {timeout_s:g} s: {found['message']}")
        time.sleep(POLL_S)


def _source(item: dict[str, Any]) -> str:
    return f"{item['repository']}@{item['revision']}" if item["revision"] else str(item["repository"])


def _show(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(item)
    else:
        output.show_fields({key: value for key, value in item.items() if key != "warnings"})
