"""Routes that tell what was used, what it cost and how much is left of limits; as JSON, or as CSV for a spreadsheet."""

import csv
import dataclasses
import datetime
import io
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from fastapi.params import Depends as DependsParam
from starlette.responses import JSONResponse, Response, StreamingResponse

from cluster import control, errors, records, usage_report, windows
from cluster.actor import Actor
from cluster.api import usage_schemas, wire
from cluster.api.routes import Routes
from cluster.settings import Settings
from cluster.usage_records import GROUPS, Asked, Held, Used

USUAL_DAYS = 30
MOST_HELD = 100_000
"""Groups of hardware in a CSV."""
DAY = "A day like 2026-01-31, a time, or Unix seconds; days are UTC."
BY = f"What to tell apart, separated by commas: {', '.join(GROUPS)}."
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A cell that begins so would be run by a spreadsheet."""
CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@dataclasses.dataclass(frozen=True)
class Answering:
    """How a question is to be answered."""

    asked: Asked
    format: Literal["json", "csv"]
    part: Literal["requests", "capacity"]


def answering(
    since: Annotated[str | None, Query(description=f"The first day; 30 days ago where it is left out. {DAY}")] = None,
    until: Annotated[str | None, Query(description=f"The last day, included; today where it is left out. {DAY}")] = None,
    by: Annotated[str, Query(description=BY)] = "",
    key: Annotated[str | None, Query(description="Only this key, by id.")] = None,
    model: Annotated[str | None, Query(description="Only this model.")] = None,
    adapter: Annotated[str | None, Query(description="Only this adapter.")] = None,
    tenant: Annotated[str | None, Query(description="Only keys of this tenant.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: str | None = None,
    format: Literal["json", "csv"] = "json",
    part: Annotated[Literal["requests", "capacity"], Query(description="Which of the two a CSV has.")] = "requests",
) -> Answering:
    """A dependency: the question, without whose it is. Raises InvalidRequest."""
    now = time.time()
    first = _day(since, "since") if since else windows.day(now - (USUAL_DAYS - 1) * windows.DAY_S)
    last = _day(until, "until") if until else windows.day(now)
    if first > last:
        raise errors.InvalidRequest(f"since ({first}) is after until ({last}).", param="since")
    if cursor is not None and not re.fullmatch(r"[0-9]{1,9}", cursor):
        raise errors.InvalidRequest("cursor takes what the page before said.", param="cursor")
    asked = Asked(first, last, _groups(by), limit=limit, offset=int(cursor or 0), key=key, model=model, adapter=adapter, tenant=tenant)
    return Answering(asked, format, part)


Question = Annotated[Answering, Depends(answering)]


def router(settings: Settings, commands: control.Control, reports: usage_report.Reports, who: DependsParam) -> Routes:
    """`who` is the dependency that names the actor."""
    api = Routes("usage")

    @api.get(
        "/v2/endpoint/{namespace}/{name}/usage",
        summary="What it used and what that cost, by day, key, model, ...",
        response_model=usage_schemas.Usage,
        responses=CSV,
    )
    def usage_of_endpoint(namespace: str, name: str, actor: Annotated[Actor, who], question: Question) -> Response:
        row = commands.get(actor, namespace, name)
        asked = dataclasses.replace(question.asked, namespace=row.namespace, endpoint=row.name, first_revision=row.first_revision)
        return _answer(settings, reports, actor, dataclasses.replace(question, asked=asked))

    @api.get(
        "/v2/usage",
        summary="What was used in all namespaces that this key may see",
        response_model=usage_schemas.Usage,
        responses=CSV,
    )
    def usage(
        actor: Annotated[Actor, who],
        question: Question,
        namespace: str | None = None,
        endpoint: Annotated[str | None, Query(description="NAME or NAMESPACE/NAME; deleted ones too.")] = None,
    ) -> Response:
        asked = dataclasses.replace(question.asked, scope=usage_report.scope_of(actor), namespace=namespace)
        if endpoint is not None:
            place, slash, name = endpoint.rpartition("/")
            asked = dataclasses.replace(asked, namespace=place if slash else namespace or actor.namespace, endpoint=name)
        return _answer(settings, reports, actor, dataclasses.replace(question, asked=asked))

    @api.get(
        "/v2/endpoint/{namespace}/{name}/limits",
        summary="How much is left of its limits, and of those of its keys",
        response_model=usage_schemas.Limited,
    )
    def limits_of_endpoint(namespace: str, name: str, actor: Annotated[Actor, who]) -> Response:
        own, keys = reports.limits_of_endpoint(commands.get(actor, namespace, name), time.time())
        return JSONResponse({"currency": settings.currency, "limits": [_limit(one) for one in own], "keys": _keys(keys)})

    @api.get("/v2/limits", summary="How much is left of the limits of one's platform keys", response_model=usage_schemas.Limited)
    def limits(actor: Annotated[Actor, who]) -> Response:
        keys = reports.limits_of_platform_keys(actor, time.time())
        return JSONResponse({"currency": settings.currency, "limits": [], "keys": _keys(keys)})

    return api


def _answer(settings: Settings, reports: usage_report.Reports, actor: Actor, question: Answering) -> Response:
    asked = question.asked
    if question.format == "csv":
        return _spreadsheet(reports, actor, question)
    found = reports.used(dataclasses.replace(asked, limit=asked.limit + 1))
    items = list(_described(reports, actor, found[: asked.limit]))
    whole = dataclasses.replace(asked, by=(), offset=0)
    capacity, total = reports.capacity(asked), reports.capacity(whole)
    return JSONResponse(
        {
            "since": asked.since,
            "until": asked.until,
            "currency": settings.currency,
            "items": items,
            "cursor": str(asked.offset + asked.limit) if len(found) > asked.limit else None,
            "total": _used(reports.used(whole)[0]),
            "capacity": _both(capacity, total[0]) if capacity is not None and total else None,
        }
    )


def _spreadsheet(reports: usage_report.Reports, actor: Actor, question: Answering) -> Response:
    asked = question.asked
    if question.part == "capacity":
        held = reports.capacity(dataclasses.replace(asked, limit=MOST_HELD)) or []
        nothing = usage_report.Capacity(Held(dict.fromkeys(asked.of_capacity.columns, "0")), 0.0)
        return _csv("capacity.csv", list(_capacity(nothing)), (_capacity(one) for one in held))
    heading = list(_used(Used(dict.fromkeys(asked.columns, "0")))) + (["keyDescription"] if "key" in asked.columns else [])
    return _csv("usage.csv", heading, _described(reports, actor, reports.all_used(asked)))


def _both(items: list[usage_report.Capacity], total: usage_report.Capacity) -> dict[str, Any]:
    return {"items": [_capacity(one) for one in items], "total": _capacity(total)}


def _described(reports: usage_report.Reports, actor: Actor, rows: Iterable[Used]) -> Iterator[dict[str, Any]]:
    """As JSON, keys with their descriptions."""
    source = iter(rows)
    while part := list(itertools.islice(source, usage_report.AT_ONCE)):
        words = reports.descriptions(actor, [row.group.get("key", "") for row in part])
        for row in part:
            found = _used(row)
            if "key" in row.group:
                found["keyDescription"] = words.get(row.group["key"])
            yield found


def _group(group: Mapping[str, str]) -> dict[str, Any]:
    return {name: int(value) if name == "revision" else value for name, value in group.items()}


def _used(row: Used) -> dict[str, Any]:
    return {
        **_group(row.group),
        "requests": row.finished + row.aborted + row.failed,
        "finished": row.finished,
        "aborted": row.aborted,
        "failed": row.failed,
        "promptTokens": row.prompt_tokens,
        "completionTokens": row.completion_tokens,
        "cachedTokens": row.cached_tokens,
        "images": row.images,
        "busySeconds": round(row.share_s, 3),
        "acceleratorSeconds": round(row.accelerator_s, 3),
        "cost": round(row.cost, 9),
    }


def _capacity(one: usage_report.Capacity) -> dict[str, Any]:
    return {
        **_group(one.held.group),
        "replicaSeconds": round(one.replica_s, 3),
        "acceleratorSeconds": round(one.held.accelerator_s, 3),
        "busySeconds": round(one.busy_s, 3),
        "idleSeconds": round(one.idle_s, 3),
        "startingSeconds": round(one.held.starting_s, 3),
        "idleShare": round(one.share(one.idle_s), 4),
        "startingShare": round(one.share(one.held.starting_s), 4),
        "hourlyCost": round(one.held.hourly_cost, 9),
        "committedCost": round(one.held.committed_cost, 9),
        "cost": round(one.cost, 9),
        "scaledToZero": one.held.zeros,
        "idleBeforeZeroSeconds": round(one.held.zero_wait_s, 3),
        "idleBeforeZeroCost": round(one.held.zero_wait_cost, 9),
    }


def _keys(rows: Iterable[tuple[records.Key, list[usage_report.Limit]]]) -> list[dict[str, Any]]:
    return [{"id": row.id, "description": row.description, "limits": [_limit(one) for one in limits]} for row, limits in rows]


def _limit(one: usage_report.Limit) -> dict[str, Any]:
    left = None if one.used is None else max(0.0, one.most - one.used)
    return {
        "limit": one.name,
        "most": one.most,
        "used": one.used,
        "left": left,
        "exceeded": left == 0.0,
        "resets": wire.time(one.resets) if one.resets else None,
    }


def _csv(name: str, heading: list[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """A heading and a line for each row, as they are read. The first part is read before the answer begins: it may be refused."""
    source = iter(rows)
    first = list(itertools.islice(source, 1))
    lines = _lines(heading, itertools.chain(first, source))
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _lines(names: list[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        writer.writerow([cell(row.get(name)) for name in names])
        if text.tell() > 2**16:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def cell(value: object) -> object:
    """A value as a spreadsheet may have it: numbers stay numbers, text never becomes a formula."""
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA):
        return f"'{value}"
    return value


def _groups(by: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    if unknown := next((name for name in names if name not in GROUPS), None):
        raise errors.InvalidRequest(f"by takes {', '.join(GROUPS)}, not {unknown[:40]!r}.", param="by")
    return names


def _day(text: str, name: str) -> str:
    refused = errors.InvalidRequest(f"{name} takes a day like 2026-01-31, a time, or Unix seconds.", param=name)
    try:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
            return windows.day(float(text))
        moment = datetime.datetime.fromisoformat(text)
        return windows.day(moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp())
    except (ValueError, OverflowError, OSError):
        raise refused from None
