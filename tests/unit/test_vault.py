"""Secret values are unreadable without the cluster secret."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from cluster import errors
from cluster.vault import Vault

SECRET = b"0123456789abcdef0123456789abcdef"


@given(st.text(st.characters()))
def test_what_is_sealed_opens_to_the_same(value: str) -> None:
    assert Vault(SECRET).open(Vault(SECRET).seal(value)) == value


def test_a_sealed_value_does_not_show_the_value_and_differs_each_time() -> None:
    vault = Vault(SECRET)
    one, other = vault.seal("hf_verysecret"), vault.seal("hf_verysecret")
    assert "hf_verysecret" not in one
    assert one != other


def test_another_clusters_secret_opens_nothing() -> None:
    sealed = Vault(SECRET).seal("value")
    with pytest.raises(errors.Conflict, match="set the value again"):
        Vault(b"another secret of decent length").open(sealed)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# Every seal of one value is as long, and its last letter holds bits that decoding ignores.
LETTERS = len(Vault(SECRET).seal("value").rstrip("=")) - 1


@given(place=st.integers(0, LETTERS - 1), steps=st.integers(1, len(ALPHABET) - 1))
def test_an_altered_value_is_refused(place: int, steps: int) -> None:
    sealed = Vault(SECRET).seal("value")
    letter = ALPHABET[(ALPHABET.index(sealed[place]) + steps) % len(ALPHABET)]
    with pytest.raises(errors.Conflict):
        Vault(SECRET).open(sealed[:place] + letter + sealed[place + 1 :])


@pytest.mark.parametrize("text", ["", "plain text", "\u00e9", "gAAAAA", Fernet(Fernet.generate_key()).encrypt(b"value").decode()])
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(errors.Conflict):
        Vault(SECRET).open(text)


def test_a_vault_never_shows_its_secret() -> None:
    vault = Vault(SECRET)
    assert SECRET.decode() not in repr(vault) + str(vars(vault))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Vault(b"short")
