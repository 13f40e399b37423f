"""`moorage usage`: what was used, what hardware that took, what it cost, and how much is left of limits."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.cli import client, output
from cluster.cli.endpoints import Namespace

app = typer.Typer(add_completion=False)

Name = Annotated[str | None, typer.Argument(help="NAME, or NAMESPACE/NAME; all that you may see without it.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="First day, 2026-01-31 (default: 30 days in all).", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Last day, included (default: today).", show_default=False)]
By = Annotated[
    str | None,
    typer.Option(
        help="What to tell apart: day, namespace, endpoint, revision, key, model, adapter, tenant; several with commas.", show_default=False
    ),
]
GROUPS = ("day", "namespace", "endpoint", "revision", "tenant", "key", "keyDescription", "model", "adapter")
HOUR_S = 3600.0
REQUESTS = (
    "Requests: what they used. Busy hours are a replica's time that was theirs; their cost is that time at the price of the instance."
)
HARDWARE = (
    "Hardware: what was held. Busy, idle (ready with nothing to do) and starting are shares of the replicas' time. "
    "Cost is what the plan charges: hourly for each replica's time, committed for the promised number whether it is up or not. "
    "Before zero: what idle waiting before each scale-to-zero cost; half the timeout would have saved half of it."
)


@app.command()
def usage(
    ctx: typer.Context,
    name: Name = None,
    since: Since = None,
    until: Until = None,
    by: By = None,
    limits: Annotated[bool, typer.Option("--limits", help="Show how much is left of limits instead.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every group of requests as CSV.")] = False,
    namespace: Namespace = None,
    as_json: output.Json = False,
) -> None:
    """Show what was used, what hardware that took and what it cost."""
    with client.connect(ctx.obj, namespace) as api:
        if limits:
            _show_limits(api.call("GET", api.path(name, "/limits") if name else "/manage/v2/limits"), as_json)
            return
        path = api.path(name, "/usage") if name else "/manage/v2/usage"
        given = {"since": since, "until": until, "by": by if by is not None else "day" if name else "endpoint"}
        given |= {} if name else {"namespace": namespace}
        asked = {field: value for field, value in given.items() if value is not None}
        if as_csv:
            output.show_text(api.text(path, {**asked, "format": "csv"}), end="")
            return
        found = _whole(api, path, asked)
    if as_json:
        output.show_json(found)
    else:
        _show(found)


def _whole(api: client.Client, path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Every page in one."""
    found: dict[str, Any] = api.call("GET", path, params=asked)
    cursor = found["cursor"]
    while cursor:
        page = api.call("GET", path, params={**asked, "cursor": cursor})
        found["items"] += page["items"]
        cursor = page["cursor"]
    return {**found, "cursor": None}


def _show(found: dict[str, Any]) -> None:
    currency = found["currency"]
    output.say(f"{found['since']} to {found['until']} (UTC), in {currency}")
    output.say(REQUESTS)
    names = [name for name in GROUPS if any(name in item for item in found["items"])]
    rows = [(*(item.get(name) for name in names), *_requests(item)) for item in found["items"]]
    if names:
        rows.append(("total", *("" for _ in names[1:]), *_requests(found["total"])))
    columns = ("requests", "failed", "aborted", "prompt", "cached", "completion", "busy h", "accelerator h", f"cost {currency}")
    output.show_table((*_titles(names), *columns), rows)
    capacity = found["capacity"]
    if capacity is None or not capacity["total"]["replicaSeconds"] + capacity["total"]["cost"]:
        return
    output.say(HARDWARE)
    names = [name for name in GROUPS if any(name in item for item in capacity["items"])]
    rows = [(*(item.get(name) for name in names), *_hardware(item)) for item in capacity["items"]]
    if names:
        rows.append(("total", *("" for _ in names[1:]), *_hardware(capacity["total"])))
    columns = ("replica h", "accelerator h", "busy", "idle", "starting", "hourly", "committed", f"cost {currency}", "before zero")
    output.show_table((*_titles(names), *columns), rows)


def _requests(item: dict[str, Any]) -> tuple[object, ...]:
    counts = (item[name] for name in ("requests", "failed", "aborted", "promptTokens", "cachedTokens", "completionTokens"))
    return (*counts, _hours(item["busySeconds"]), _hours(item["acceleratorSeconds"]), _money(item["cost"]))


def _hardware(item: dict[str, Any]) -> tuple[object, ...]:
    busy = 1 - item["idleShare"] - item["startingShare"] if item["replicaSeconds"] else 0.0
    shares = (f"{share:.1%}" for share in (max(0.0, busy), item["idleShare"], item["startingShare"]))
    money = (_money(item[name]) for name in ("hourlyCost", "committedCost", "cost", "idleBeforeZeroCost"))
    return (_hours(item["replicaSeconds"]), _hours(item["acceleratorSeconds"]), *shares, *money)


def _show_limits(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(found)
        return
    owners = [("endpoint", "", found["limits"]), *((key["id"], key["description"], key["limits"]) for key in found["keys"])]
    rows = [
        (
            owner,
            words,
            one["limit"],
            _plain(one["most"]),
            _plain(one["used"]),
            _plain(one["left"]),
            one["resets"],
            "used up" if one["exceeded"] else "",
        )
        for owner, words, limits in owners
        for one in limits
    ]
    empty = "There are no limits here: `moorage keys create` and the endpoint's `limits` set them."
    output.show_table(("of", "description", "limit", "most", "used", "left", "begins anew", ""), rows, empty)


def _titles(names: list[str]) -> tuple[str, ...]:
    return tuple({"keyDescription": "key's description"}.get(name, name) for name in names)


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR_S:.3f}"


def _money(amount: float) -> str:
    """Small sums keep their digits."""
    return f"{amount:.2f}" if amount >= 1 or not amount else f"{amount:.6f}"


def _plain(number: float | None) -> str:
    return "" if number is None else f"{number:.6f}".rstrip("0").rstrip(".")
