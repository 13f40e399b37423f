"""API keys: what is minted is well formed, and nothing that was not minted passes for it."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import keys

KINDS = st.sampled_from([keys.PLATFORM, keys.ENDPOINT])
PLACES = st.integers(0, 10_000)


@given(KINDS)
def test_a_minted_key_has_the_form_that_was_promised(kind: str) -> None:
    minted = keys.mint(kind)
    assert re.fullmatch(rf"moor_{kind}_{minted.id}_[0-9A-Za-z]{{38}}", minted.key)
    assert re.fullmatch(r"[0-9A-Za-z]{12}", minted.id)
    assert keys.key_id(minted.key) == minted.id


@given(KINDS)
def test_the_digest_is_the_sha256_of_the_whole_key(kind: str) -> None:
    minted = keys.mint(kind)
    assert minted.digest == hashlib.sha256(minted.key.encode()).hexdigest() == keys.digest(minted.key)


@given(KINDS, PLACES, st.characters())
def test_a_key_with_one_wrong_character_is_refused(kind: str, place: int, wrong: str) -> None:
    key = keys.mint(kind).key
    place %= len(key)
    if key[place] != wrong:
        assert keys.key_id(key[:place] + wrong + key[place + 1 :]) is None


@given(KINDS, PLACES)
def test_a_key_with_two_neighbours_swapped_is_refused(kind: str, place: int) -> None:
    key = keys.mint(kind).key
    place %= len(key) - 1
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert swapped == key or keys.key_id(swapped) is None


@given(KINDS, PLACES, st.text(min_size=1, max_size=3))
def test_a_key_with_something_missing_or_added_is_refused(kind: str, place: int, added: str) -> None:
    key = keys.mint(kind).key
    place %= len(key)
    for other in (key[:place], key[:place] + key[place + 1 :], key + added, added + key, key[:place] + added + key[place:]):
        assert keys.key_id(other) is None


@given(st.text())
def test_any_text_is_looked_at_without_an_exception(text: str) -> None:
    assert keys.key_id(text) is None


@given(st.from_regex(keys.PATTERN, fullmatch=True))
def test_a_made_up_key_of_the_right_form_is_refused_by_its_checksum(text: str) -> None:
    assert keys.key_id(text) is None


@pytest.mark.parametrize("kind", [keys.PLATFORM, keys.ENDPOINT])
def test_the_key_of_one_kind_does_not_pass_for_the_other(kind: str) -> None:
    key = keys.mint(kind).key
    assert keys.key_id(key.replace(f"moor_{kind}_", "moor_e_" if kind == "p" else "moor_p_", 1)) is None


def test_a_thousand_keys_share_neither_id_nor_secret_and_use_the_whole_alphabet() -> None:
    minted = [keys.mint(keys.ENDPOINT) for _ in range(1000)]
    assert len({one.id for one in minted}) == 1000
    assert len({one.key[20:52] for one in minted}) == 1000
    assert {letter for one in minted for letter in one.key[20:52]} == set(keys.ALPHABET)


def test_a_minted_key_does_not_show_its_secret_when_printed() -> None:
    minted = keys.mint(keys.PLATFORM)
    assert minted.key not in repr(minted)
