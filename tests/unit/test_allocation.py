"""How the accelerators of one instance are divided among an endpoint's members."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import allocation
from cluster.allocation import Claim

SHARE, PRIMARY = Claim(), Claim(primary=True)


@pytest.mark.parametrize(
    ("total", "claims", "shares"),
    [
        (8, [PRIMARY, SHARE, SHARE], [4, 2, 2]),
        (8, [SHARE, PRIMARY, SHARE], [2, 4, 2]),
        (8, [SHARE, SHARE, SHARE], [4, 2, 2]),
        (8, [SHARE, SHARE], [4, 4]),
        (8, [PRIMARY, SHARE], [4, 4]),
        (16, [SHARE, PRIMARY, SHARE], [4, 8, 4]),
        (8, [PRIMARY, SHARE, SHARE, SHARE], [4, 2, 1, 1]),
        (8, [SHARE] * 8, [1] * 8),
        (8, [PRIMARY, *[SHARE] * 4], [4, 1, 1, 1, 1]),
        (2, [SHARE, PRIMARY], [1, 1]),
        (8, [Claim(fixed=2), SHARE, SHARE], [2, 4, 2]),
        (8, [Claim(fixed=4), PRIMARY, SHARE], [4, 2, 2]),
        (8, [Claim(fixed=2), Claim(fixed=2)], [2, 2]),
        (8, [Claim(fixed=1, primary=True), SHARE], [1, 4]),
    ],
)
def test_an_instance_is_divided_in_powers_of_two(total, claims, shares):
    assert allocation.divide(total, claims) == shares


@pytest.mark.parametrize(
    ("total", "claims", "needed"),
    [(2, [SHARE, SHARE, SHARE], 4), (4, [Claim(fixed=4), SHARE], 8), (8, [Claim(fixed=8), Claim(fixed=8)], 16), (1, [PRIMARY, SHARE], 2)],
)
def test_an_instance_that_is_too_small_says_what_would_do(total, claims, needed):
    with pytest.raises(allocation.TooSmall) as refused:
        allocation.divide(total, claims)
    assert refused.value.needed == needed
    assert len(allocation.divide(needed, claims)) == len(claims)


@pytest.mark.parametrize(
    ("total", "claims", "shares"),
    [
        (1, [SHARE, SHARE], [0.5, 0.5]),
        (2, [PRIMARY, SHARE, SHARE], [1, 0.5, 0.5]),
        (4, [SHARE, SHARE], [2, 2]),
        (1, [SHARE] * 3, [0.5, 0.25, 0.25]),
    ],
)
def test_fewer_cpus_than_members_are_divided_in_fractions(total, claims, shares):
    assert allocation.divide_cpus(total, claims) == shares


claims = st.lists(st.sampled_from([None, None, 1, 2, 4, 8]), min_size=1, max_size=12)


@given(total=st.sampled_from([1, 2, 4, 8, 16, 32, 64]), fixed=claims, primary=st.integers(-1, 11))
def test_shares_are_powers_of_two_that_fit_and_no_more_could_be_shared(total, fixed, primary):
    asked = [Claim(number, place == primary) for place, number in enumerate(fixed)]
    least = sum(number or 1 for number in fixed)
    if least > total:
        with pytest.raises(allocation.TooSmall) as refused:
            allocation.divide(total, asked)
        assert total < least <= refused.value.needed < 2 * least
        total = refused.value.needed
    shares = allocation.divide(total, asked)
    assert sum(shares) <= total
    assert all(share > 0 and share & (share - 1) == 0 for share in shares)
    assert all(share == number for share, number in zip(shares, fixed, strict=True) if number is not None)
    sharing = [share for share, claim in zip(shares, asked, strict=True) if claim.fixed is None and not claim.primary]
    if sharing:
        assert max(sharing) <= 2 * min(sharing)
        assert min(sharing) > total - sum(shares)
    for share, claim in zip(shares, asked, strict=True):
        if claim.primary and claim.fixed is None:
            others = sum(number or 0 for number in fixed) + len(sharing)
            assert 2 * share + others > total
