"""`moorage requests`: the log of requests as a table, one request whole, or requests as they come."""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cluster.cli import client, moments, output

app = typer.Typer()

PAGE = 200
POLL_S = 1.0
LATE_S = 5.0
"""A request may come into the log that much later than one that ended after it."""
REMEMBERED = 5000
COLUMNS = ("time", "status", "ended", "endpoint", "replica", "key", "queue", "first byte", "total", "tokens", "id")

WHOLE = ("id", "at", "endpoint", "member", "revision", "replica", "client", "key", "tenant", "method", "path", "status", "code", "ended")


@app.command()
def requests(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="NAME, or NAMESPACE/NAME. (default: all that you may see)", show_default=False)] = None,
    identity: Annotated[
        str | None, typer.Option("--id", help="One request, whole: the X-Request-Id of its answer.", show_default=False)
    ] = None,
    status: Annotated[str | None, typer.Option(help="429, or 5xx.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="The id of a key.", show_default=False)] = None,
    code: Annotated[str | None, typer.Option(help="An error's code.", show_default=False)] = None,
    replica: Annotated[str | None, typer.Option(help="Only of this replica.", show_default=False)] = None,
    outcome: Annotated[str | None, typer.Option(help="finished, refused, client_left, replica_broke, ...", show_default=False)] = None,
    slower: Annotated[float | None, typer.Option("--slower-than", help="Seconds.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="Only with this text in the path.", show_default=False)] = None,
    since: moments.Since = None,
    until: moments.Until = None,
    limit: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 50,
    followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="(default: that of your key)", show_default=False)] = None,
    as_json: output.Json = False,
) -> None:
    """Show requests and how each ended, refused ones too; newest last."""
    asked = {"status": status, "key": key, "code": code, "replica": replica, "outcome": outcome, "slowerThan": slower, "text": text}
    params = {word: value for word, value in {**asked, **moments.query(since, until)}.items() if value is not None}
    with client.connect(ctx.obj, namespace) as api:
        path = api.path(name, "/requests") if name else "/manage/v2/requests"
        if identity is not None:
            _show_whole(api.call("GET", f"{path}/{identity}"), as_json)
        elif followed:
            for one in _follow(api, path, params, limit):
                _show_line(one, as_json)
        else:
            found = list(reversed(_newest(api, path, params, limit)))
            if as_json:
                output.show_json(found)
            else:
                output.show_table(COLUMNS, [_row(one) for one in found], empty="There are no such requests.")


def _newest(api: client.Client, path: str, params: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Newest first, page by page: a page may be short while there is more."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        more = {"limit": min(PAGE, limit - len(found))} | ({"cursor": cursor} if cursor else {})
        page = api.call("GET", path, params=params | more)
        found += page["items"]
        cursor = page["cursor"]
        if cursor is None:
            break
    return found


def _follow(api: client.Client, path: str, params: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The newest ones, then each that comes, once."""
    seen: collections.deque[str] = collections.deque(maxlen=REMEMBERED)
    found = _newest(api, path, params, limit)
    while True:
        new = [one for one in reversed(found) if one["id"] not in seen]
        seen.extend(one["id"] for one in new)
        yield from new
        if found:  # by the platform's clock
            newest = datetime.datetime.fromisoformat(found[0]["at"]).timestamp()
            params = params | {"since": f"{newest - LATE_S:.3f}"}
        time.sleep(POLL_S)
        found = _newest(api, path, params, REMEMBERED)


def _show_line(one: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json_line(one)
    else:
        output.show_text("  ".join(str(cell) for cell in _row(one) if cell not in (None, "")))


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["at"],
        one["status"] or "-",
        one["code"] or one["outcome"].replace("_", " "),
        one["endpoint"] or one["path"],
        _short(one["replica"]),
        one["key"],
        _time(one["queueSeconds"]),
        _time(one["firstByteSeconds"]),
        _time(one["totalSeconds"]),
        _tokens(one["tokens"]),
        one["id"],
    )


def _show_whole(one: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(one)
        return
    engine = one["engine"] or {}
    output.show_fields(
        {
            **{name: one[name] for name in WHOLE},
            "tried again": one["tries"] or None,
            "queue": _time(one["queueSeconds"]),
            "first byte": _time(one["firstByteSeconds"]),
            "total": _time(one["totalSeconds"]),
            "bytes": f"{output.size(one['bytesIn'])} in, {output.size(one['bytesOut'])} out",
            "tokens": _tokens(one["tokens"]),
            "in the engine": ", ".join(
                f"{word} {_time(engine[field])}"
                for word, field in (("queue", "queueSeconds"), ("first token", "firstTokenSeconds"), ("total", "totalSeconds"))
                if engine
            ),
            "more": one["where"]["logs"],
            "prompt": one["where"]["prompt"],
        }
    )
    for line in one["logs"]:
        output.show_text(f"{line['at']} {_short(line['replica'])} {line['level'].upper():7} {line['text']}")


def _short(replica: str | None) -> str:
    member, _, identity = (replica or "").rpartition(":")
    return f"{member}:{identity[-8:]}" if member else identity[-8:]


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _tokens(tokens: dict[str, int] | None) -> str | None:
    if tokens is None:
        return None
    cached = f" ({tokens['cached']} cached)" if tokens["cached"] else ""
    return f"{tokens['prompt']}{cached} + {tokens['completion']}"
