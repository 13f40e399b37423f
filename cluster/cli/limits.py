"""Options for limits and expiry, the same for keys and endpoints, and what is shown of them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cluster.errors import InvalidRequest

PANEL = "Limits"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

Rpm = Annotated[
    int | None,
    typer.Option("--rpm", "--requests-per-minute", help="Most requests in a minute; 0 = no limit.", rich_help_panel=PANEL),
]
Tpm = Annotated[
    int | None, typer.Option("--tpm", "--tokens-per-minute", help="Most tokens in a minute; 0 = no limit.", rich_help_panel=PANEL)
]
Tpd = Annotated[int | None, typer.Option("--tpd", "--tokens-per-day", help="Most tokens in a day; 0 = no limit.", rich_help_panel=PANEL)]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", help="Most requests at the same time; 0 = no limit.", rich_help_panel=PANEL)
]
Budget = Annotated[
    float | None, typer.Option("--budget", help="Most money in each period, in the unit of prices; 0 = no limit.", rich_help_panel=PANEL)
]
BudgetPeriod = Annotated[
    str | None, typer.Option("--budget-period", help="day, week, month (the default) or total.", rich_help_panel=PANEL)
]
Expires = Annotated[
    str | None,
    typer.Option("--expires", help="When it ends: 12h, 30d, a date (2027-01-31), a time (2027-01-31T12:00:00Z), or never."),
]


def body(
    rpm: int | None, tpm: int | None, tpd: int | None, concurrency: int | None, budget: float | None, budget_period: str | None
) -> dict[str, Any]:
    """The wire form of what was given."""
    found = {
        "requestsPerMinute": rpm,
        "tokensPerMinute": tpm,
        "tokensPerDay": tpd,
        "concurrency": concurrency,
        "budget": budget,
        "budgetPeriod": budget_period,
    }
    return {name: value for name, value in found.items() if value is not None}


def expiry(text: str | None) -> dict[str, Any]:
    """The wire form of --expires; {} where it was not given. A date ends with its day, in UTC. Raises InvalidRequest."""
    if text is None:
        return {}
    if text == "never":
        return {"expiresAt": None}
    if (seconds := duration(text)) is not None:
        return {"expiresInSeconds": seconds}
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"--expires takes a time from now (12h, 30d), a date (2027-01-31), a time (2027-01-31T12:00:00Z) or never, not {text!r}."
        ) from None
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        moment += datetime.timedelta(days=1)
    aware = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
    return {"expiresAt": aware.strftime("%Y-%m-%dT%H:%M:%SZ")}


def duration(text: str) -> int | None:
    """Seconds of `90s`, `15m`, `12h`, `30d`, `4w` (a bare number is seconds); None for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhdw]?)", text)
    return int(match[1]) * UNITS[match[2] or "s"] if match else None


def words(row: Mapping[str, Any]) -> str:
    """The limits of a key or an endpoint as a person reads them; '' for none."""
    short = (("requestsPerMinute", "/min"), ("tokensPerMinute", " tok/min"), ("tokensPerDay", " tok/day"), ("concurrency", " at once"))
    found = [f"{row[name]}{unit}" for name, unit in short if row.get(name)]
    if row.get("budget"):
        period = row.get("budgetPeriod", "month")
        found.append(f"{row['budget']:g} {'in all' if period == 'total' else f'a {period}'}")
    return ", ".join(found)
