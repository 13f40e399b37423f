"""`moorage endpoints ...`: one command per verb of the API."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import typer

from cluster import errors, registry
from cluster.cli import client, fields, fits, follow, limits, metrics, moments, output

app = typer.Typer(no_args_is_help=True, help="Create, look at, change and delete endpoints.")

Name = Annotated[str, typer.Argument(help="NAME, or NAMESPACE/NAME.", show_default=False)]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="(default: that of your key)", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Show the phases and return when it has settled.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most, where it waits.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen and change nothing.")]


@app.command()
@fields.taking_fields
def create(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="(default: made from the model's name)", show_default=False)] = None,
    fields: fields.Fields = fields.Fields(),
    namespace: Namespace = None,
    wait: Wait = False,
    timeout: Timeout = 3600,
    dry_run: DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Create an endpoint."""
    body = to_body(fields) | ({"name": name} if name else {})
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(), body, {"dryRun": "true"} if dry_run else None)
        if dry_run:
            show_plan(made, as_json)
            return
        _show_first_key(made, as_json)
        if wait:
            made |= follow.until_settled(api, made["name"], timeout)
        show(made, as_json)


@app.command()
@fields.taking_fields
def update(
    ctx: typer.Context,
    name: Name,
    fields: fields.Fields = fields.Fields(),
    model_version: Annotated[
        str | None,
        typer.Option("--model-version", help="Another version of its registered model, or latest.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    wait: Wait = False,
    timeout: Timeout = 3600,
    dry_run: DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Change what is given and leave the rest. Another model or engine setting starts a new revision beside the old one."""
    with client.connect(ctx.obj, namespace) as api:
        body = to_body(fields)
        if model_version is not None:
            body["model"] = {**body.get("model", {}), "repository": _at_version(api, name, model_version)}
        made = api.call("PUT", api.path(name), body, {"dryRun": "true"} if dry_run else None)
        if dry_run:
            show_plan(made, as_json)
            return
        for warning in made.get("warnings") or ():
            output.say(warning)
        if wait:
            made = follow.until_settled(api, name, timeout)
        show(made, as_json)


@app.command("ls")
def list_(
    ctx: typer.Context,
    search: Annotated[str | None, typer.Option(help="Part of the name or model.", show_default=False)] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """List the endpoints."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(api.path(), search=search, state=state)
    columns, empty = ("name", "state", "replicas", "model", "hardware", "age"), "There are no endpoints yet: `moorage endpoints create`."
    output.show_items(found, as_json, columns, _cells, empty)


@app.command()
def describe(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Show one endpoint."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.call("GET", api.path(name))
        show(found, as_json)
        if not as_json and found["status"].get("readyReplica"):
            metrics.show_hardware(api.call("GET", api.path(name, "/metrics")))


@app.command()
def wait(
    ctx: typer.Context,
    name: Name,
    state: Annotated[str | None, typer.Option(help="Wait for this state. (default: any that lasts)", show_default=False)] = None,
    timeout: Timeout = 3600,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Wait until an endpoint has settled, showing its phases. The exit code is 1 when it failed."""
    with client.connect(ctx.obj, namespace) as api:
        show(follow.until_settled(api, name, timeout, wanted=state), as_json)


@app.command()
def pause(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Stop an endpoint until it is resumed; requests are refused meanwhile."""
    _command(ctx, name, "pause", namespace, as_json)


@app.command()
def resume(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Start a paused, failed or scaled-to-zero endpoint."""
    _command(ctx, name, "resume", namespace, as_json)


@app.command("scale-to-zero")
def scale_to_zero(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Free the hardware of an endpoint; the next request starts it again."""
    _command(ctx, name, "scale-to-zero", namespace, as_json)


@app.command()
def restart(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """Replace the replicas of an endpoint by new ones."""
    _command(ctx, name, "restart", namespace, as_json)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    yes: output.Yes = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Delete an endpoint with its keys and history."""
    output.confirm(f"Delete {name} with its keys and history?", yes)
    with client.connect(ctx.obj, namespace) as api:
        api.call("DELETE", api.path(name))
    output.show_done({"deleted": name}, f"{name} is being deleted.", as_json)


@app.command()
def logs(
    ctx: typer.Context,
    name: Name,
    followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    tail: Annotated[int, typer.Option(help="Begin with that many of the last lines.")] = 200,
    replica: Annotated[str | None, typer.Option(help="Only this replica.", show_default=False)] = None,
    level: Annotated[str, typer.Option(help="Only this level and above: debug (a line per request), info, warning, error.")] = "info",
    text: Annotated[str | None, typer.Option(help="Only lines with this text.", show_default=False)] = None,
    since: moments.Since = None,
    until: moments.Until = None,
    before: moments.Before = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show what an endpoint's engines have written."""
    wanted = {"tail": tail, "replica": replica, "level": level, "text": text, "before": before, **moments.query(since, until)}
    params = {key: value for key, value in wanted.items() if value is not None}
    with client.connect(ctx.obj, namespace) as api:
        if followed:
            for line in api.lines(api.path(name, "/logs"), params | {"follow": "true"}):
                _show_line(line, as_json)
            return
        page = api.call("GET", api.path(name, "/logs"), params=params)
    if as_json:
        output.show_json(page["items"])
        return
    for line in page["items"]:
        _show_line(line, as_json)
    moments.say_more(page["cursor"])


@app.command()
def events(
    ctx: typer.Context,
    name: Name,
    followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events.")] = False,
    tail: Annotated[int, typer.Option(help="Begin with that many of the last events.")] = 200,
    level: Annotated[str | None, typer.Option(help="Only this level: info, warning, error.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="Only events of this kind: created, live, failed, ...", show_default=False)] = None,
    replica: Annotated[str | None, typer.Option(help="Only of this replica.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="Only with this text in the message.", show_default=False)] = None,
    since: moments.Since = None,
    until: moments.Until = None,
    before: moments.Before = None,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show what has happened to an endpoint."""
    wanted = {"limit": tail, "level": level, "kind": kind, "replica": replica, "text": text, "before": before}
    params = {key: value for key, value in {**wanted, **moments.query(since, until)}.items() if value is not None}
    with client.connect(ctx.obj, namespace) as api:
        if followed:
            for event in api.lines(api.path(name, "/events"), params | {"follow": "true"}):
                _show_event(event, as_json)
            return
        page = api.call("GET", api.path(name, "/events"), params=params)
    found = page["items"]
    if as_json:
        output.show_json(found)
        return
    rows = [(output.age(item["at"]), item.get("revision"), item["kind"], item.get("reason"), item["message"]) for item in found]
    output.show_table(("age", "revision", "event", "reason", "message"), rows)
    moments.say_more(page["cursor"])


app.command("metrics")(metrics.metrics)


@app.command()
def revisions(ctx: typer.Context, name: Name, namespace: Namespace = None, as_json: output.Json = False) -> None:
    """List the revisions of an endpoint."""
    with client.connect(ctx.obj, namespace) as api:
        found = api.items(api.path(name, "/revisions"))
    output.show_items(
        found,
        as_json,
        ("revision", "status", "age", "by", "message"),
        lambda item: (item["revision"], item["status"], output.age(item["createdAt"]), item["createdBy"], item["message"]),
    )


@app.command()
def rollback(
    ctx: typer.Context,
    name: Name,
    to: Annotated[int | None, typer.Option(help="Revision to go back to. (default: the one before)", show_default=False)] = None,
    namespace: Namespace = None,
    wait: Wait = False,
    timeout: Timeout = 3600,
    as_json: output.Json = False,
) -> None:
    """Go back to an earlier revision."""
    with client.connect(ctx.obj, namespace) as api:
        made = api.call("POST", api.path(name, "/rollback"), {} if to is None else {"revision": to})
        show(follow.until_settled(api, name, timeout) if wait else made, as_json)


def _at_version(api: client.Client, name: str, version: str) -> str:
    repository = api.call("GET", api.path(name))["model"]["repository"]
    if not registry.is_address(repository):
        raise errors.InvalidRequest(f"{name} runs {repository}, which is no model of the registry: say --model or --revision.")
    return f"{repository.partition('@')[0]}@{version}"


def to_body(given: fields.Fields) -> dict[str, Any]:
    """`fields.body`, under a name that the parameter `fields` of the commands does not hide."""
    return fields.body(given)


def show(endpoint: dict[str, Any], as_json: bool) -> None:
    """One endpoint: everything with --json, else what a person wants to know."""
    if as_json:
        output.show_json(endpoint)
        return
    status, model = endpoint["status"], endpoint["model"]
    output.show_fields(
        {
            "name": endpoint["name"],
            "state": status["state"],
            "reason": status.get("reason"),
            "message": status.get("message"),
            "url": status.get("url"),
            "replicas": _replicas(endpoint),
            "model": _model(endpoint),
            **_members(endpoint),
            "update available": (status.get("update") or {}).get("model"),
            "task": model.get("task"),
            "engine": None if model.get("members") else next(iter(model.get("image") or {}), None),
            "hardware": _hardware(endpoint),
            "access": endpoint["type"],
            "limits": limits.words(endpoint.get("limits") or {}),
            "shared with": ", ".join(endpoint.get("sharedWith") or ()),
            "revision": status.get("revision"),
            "adapters": ", ".join(f"{one['name']} ({one['state']})" for one in status.get("adapters") or ()),
            "tags": ", ".join(endpoint.get("tags") or ()),
            "description": endpoint.get("description"),
            "created": status.get("createdAt"),
            "updated": status.get("updatedAt"),
            "dashboard": status.get("grafana"),
        }
    )


def show_plan(plan: dict[str, Any], as_json: bool) -> None:
    """What --dry-run found."""
    if as_json:
        output.show_json(plan)
        return
    output.show_fields(
        {
            "name": plan["endpoint"]["name"],
            "what": plan_sentence(plan),
            "changes": ", ".join(plan["changes"]),
            "one replica": needs(plan["placement"]),
            **{f"member {name}": needs(claim) for name, claim in plan.get("members", {}).items()},
            "fits now": "yes" if plan["fitsNow"] else "no: it would wait for hardware",
            "cost": _cost(plan["cost"]),
            "warnings": "; ".join(plan["warnings"]),
        }
    )
    if plan["fit"] is not None:
        fits.show(plan)


def _cost(cost: dict[str, Any]) -> str | None:
    if not cost["perHourAtMost"]:
        return None
    running = f"{cost['perHour']:g} an hour, {cost['perMonth']:g} a month for {cost['replicas']} running"
    return f"{running}; at most {cost['perHourAtMost']:g} an hour" + (", nothing at zero" if cost["atZero"] else "")


def plan_sentence(plan: dict[str, Any]) -> str:
    """Whether replicas would be replaced."""
    if plan["newRevision"]:
        return "new replicas, which take over when they are ready"
    return "applies to the running replicas" if plan["changes"] else "nothing changes"


def needs(placement: dict[str, Any]) -> str:
    """What one replica claims."""
    kind = placement.get("accelerator_type") or "GPU"
    cpus = f"{placement['cpus']:g} CPU{'s' if placement['cpus'] != 1 else ''}"
    return f"{placement['gpus']} {kind}, {cpus}" if placement["gpus"] else cpus


def _show_first_key(made: dict[str, Any], as_json: bool) -> None:
    """To standard error, since the result on standard output is the endpoint; with --json it is part of that."""
    for warning in made.get("warnings") or ():
        output.say(f"Warning: {warning}")
    if not as_json and "apiKey" in made:
        output.say(f"Its first API key, shown this once: {made['apiKey']['key']}")


def _command(ctx: typer.Context, name: str, verb: str, namespace: str | None, as_json: bool) -> None:
    with client.connect(ctx.obj, namespace) as api:
        show(api.call("POST", api.path(name, f"/{verb}")), as_json)


def _show_line(line: dict[str, Any], as_json: bool) -> None:
    """One object per line with --json: a stream is not one JSON value."""
    if as_json:
        output.show_json_line(line)
        return
    at = line["at"]
    when = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds") if isinstance(at, int | float) else at
    member, _, replica = line["replica"].rpartition(":")
    output.show_text(f"{when} {member}{':' if member else ''}{replica[-8:]} {line['level'].upper():7} {line['text']}")


def _show_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json_line(event)
        return
    words = [event["at"], event["level"].upper().ljust(7), event["kind"], event.get("reason") or "", event["message"]]
    output.show_text(" ".join(word for word in words if word))


def _cells(item: dict[str, Any]) -> tuple[object, ...]:
    return item["name"], item["status"]["state"], _replicas(item), _model(item), _hardware(item), _age(item)


def _replicas(item: dict[str, Any]) -> str:
    status = item["status"]
    return f"{status.get('readyReplica', 0)}/{status.get('targetReplica', 0)}"


def _model(item: dict[str, Any]) -> str:
    """Where its model comes from, or what its members are called."""
    members = item["model"].get("members")
    return f"{len(members)} members: {', '.join(one['name'] for one in members)}" if members else str(item["model"]["repository"])


def _members(endpoint: dict[str, Any]) -> dict[str, str]:
    """A row for each member that runs or should: the primary one first."""
    written = {one["name"]: one for one in endpoint["model"].get("members") or ()}
    rows = {}
    for place, seen in enumerate(endpoint["status"].get("members") or ()):
        said = written.get(seen["name"], {})
        words = [f"{seen['state']} {seen['readyReplica']}/{seen['targetReplica']}", "primary" if place == 0 else ""]
        words += [said.get("repository") or "", next(iter(said.get("image") or {}), "")]
        rows[f"member {seen['name']}"] = ", ".join(word for word in words if word)
    return rows


def _hardware(item: dict[str, Any]) -> str:
    compute = item.get("compute") or {}
    return " ".join(str(compute[name]) for name in ("instanceType", "instanceSize") if compute.get(name))


def _age(item: dict[str, Any]) -> str:
    return output.age(item["status"].get("createdAt"))
