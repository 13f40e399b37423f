"""What a block of the snapshot means at the edge: HAProxy's map of them, and the same refusal in Python for the slow path.

A block keeps new requests away and lets running ones end. It ends at its time, with or without a manager.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster import errors, snapshot

KEY, ENDPOINT = "k:", "e:"
PERIODS = {"tokensPerMinute": "minute", "tokensPerDay": "day"}
TOKENS_SAID = "{who} has used up its limit of {most} tokens a {period}."
BUDGET_SAID = "{who} has used up its budget of {most}."


def entries(blocks: Mapping[str, snapshot.Block]) -> dict[str, str]:
    """HAProxy's map: key id or ns/name -> `until|code|most|period`."""
    return {name[2:]: f"{_until(block)}|{block.code}|{_most(block)}|{_period(block)}" for name, block in blocks.items()}


def check(now: snapshot.Snapshot, path: str, at: float) -> None:
    """Raises TokenLimit or BudgetExceeded when the endpoint `ns/name` is blocked at `at` (Unix seconds)."""
    block = now.blocks.get(ENDPOINT + path)
    if block is None or 0 < _until(block) <= at:
        return
    wait = _until(block) - at if _until(block) else None
    said = {"who": "This endpoint", "most": _most(block), "period": _period(block)}
    if block.code == errors.BudgetExceeded.code:
        raise errors.BudgetExceeded(BUDGET_SAID.format(**said), retry_after=wait)
    raise errors.TokenLimit(TOKENS_SAID.format(**said), retry_after=wait, most=int(block.most))


def _until(block: snapshot.Block) -> int:
    return max(0, math.ceil(block.until))


def _most(block: snapshot.Block) -> str:
    return f"{block.most:.4f}".rstrip("0").rstrip(".")


def _period(block: snapshot.Block) -> str:
    return PERIODS.get(block.limit, "period")
