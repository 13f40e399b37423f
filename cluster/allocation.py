"""Divides the accelerators (or CPUs) of one instance among the members of an endpoint, in powers of two. Pure.

The rule: shares that were given are fixed. A primary gets the largest power of two that leaves one for each other; the
others divide what is left as evenly as powers of two allow. Without a primary all divide so. Evenly means: each begins with
the largest power of two that all can have, then shares are doubled, in the order of the members, while what is left allows
it. So 8 among 3 is 4, 2, 2 with a primary and without; 8 among 2 is 4, 4; 16 among 3 with a primary is 8, 4, 4. What no
power of two can use stays unused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one member asks for: `fixed` accelerators, or (None) a share. At most one of several is `primary`."""

    fixed: int | None = None
    primary: bool = False


class TooSmall(Exception):
    """The instance cannot hold all members; `needed` is the smallest power of two that can."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        super().__init__(f"{needed} are needed")


def divide(total: int, claims: Sequence[Claim]) -> list[int]:
    """Each member's share of `total`, in order; every one a power of two. Raises TooSmall."""
    fixed = sum(claim.fixed or 0 for claim in claims)
    sharing = [place for place, claim in enumerate(claims) if claim.fixed is None]
    if fixed + len(sharing) > total:
        raise TooSmall(_power_from(fixed + len(sharing)))
    shares = [claim.fixed or 0 for claim in claims]
    left = total - fixed
    for place in [place for place in sharing if claims[place].primary]:
        sharing.remove(place)
        shares[place] = _power_to(left - len(sharing))
        left -= shares[place]
    for place, share in zip(sharing, _evenly(left, len(sharing)), strict=True):
        shares[place] = share
    return shares


def divide_cpus(total: int, claims: Sequence[Claim]) -> list[float]:
    """The same of CPUs, of which a member may get a half, a quarter and so on when there are fewer than members."""
    parts = 1
    while total * parts < len(claims):
        parts *= 2
    return [share / parts for share in divide(total * parts, claims)]


def _evenly(total: int, count: int) -> list[int]:
    if count == 0:
        return []
    shares = [_power_to(total // count)] * count
    left = total - sum(shares)
    for place, share in enumerate(shares):
        if share <= left:
            shares[place] = 2 * share
            left -= share
    return shares


def _power_to(number: int) -> int:
    """The largest power of two that is not over `number` (1 or more)."""
    return 1 << (number.bit_length() - 1)


def _power_from(number: int) -> int:
    """The smallest power of two that is not under `number` (1 or more)."""
    return 1 << (number - 1).bit_length()
