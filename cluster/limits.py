"""How much a key or an endpoint may use. Who enforces what: HAProxy counts requests, `cluster.ledger` tokens and money."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.resource import Resource

Period = Literal["day", "week", "month", "total"]


class Limits(Resource):
    """Limits of 0 are none. Refused requests count against none of them; aborted and failed ones count with what they used."""

    requests_per_minute: int = Field(0, ge=0, le=1_000_000)
    tokens_per_minute: int = Field(0, ge=0, le=1_000_000_000_000)
    """Prompt and completion tokens together, of requests that ended in the minute."""
    tokens_per_day: int = Field(0, ge=0, le=1_000_000_000_000)
    """A day begins at midnight UTC."""
    concurrency: int = Field(0, ge=0, le=100_000)
    """Requests at the same time."""
    budget: float = Field(0, ge=0, le=1_000_000_000_000)
    """Money in each `budget_period`, in the unit of the hardware table's prices."""
    budget_period: Period = "month"
    """Days, weeks (from Monday) and months begin at midnight UTC; `total` never begins anew."""
