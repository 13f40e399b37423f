"""Secret values are unreadable without the cluster secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from cluster import errors
from cluster.vault import KeyFileUnusable, Vault

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


UNSEALED = {
    "nothing": "",
    "plain text": "plain text",
    "no ASCII": "\u00e9",
    "a beginning": "gAAAAA",
    "under another key": Fernet(Fernet.generate_key()).encrypt(b"value").decode(),
}


@pytest.mark.parametrize("text", UNSEALED.values(), ids=UNSEALED)
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(errors.Conflict):
        Vault(SECRET).open(text)


def test_a_vault_never_shows_its_secret() -> None:
    vault = Vault(SECRET)
    assert SECRET.decode() not in repr(vault) + str(vars(vault))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Vault(b"short")


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "keys"
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


FERNET, HEX = Fernet.generate_key(), b"0123456789abcdef" * 4


KEY_FILES = {
    "fernet": FERNET,
    "hexadecimal": HEX,
    "a line": HEX + b"\n",
    "bytes": bytes(range(200, 240)),
    "two keys": FERNET + b"\n" + HEX + b"\n",
}


@pytest.mark.parametrize("content", KEY_FILES.values(), ids=KEY_FILES)
def test_values_are_sealed_under_the_operators_first_key(tmp_path: Path, content: bytes) -> None:
    vault = Vault(SECRET, key_file(tmp_path, content))
    assert vault.open(vault.seal("value")) == "value"
    with pytest.raises(errors.Conflict):
        Vault(SECRET).open(vault.seal("value"))
    if content.startswith(FERNET):
        assert Fernet(FERNET).decrypt(vault.seal("value").encode()) == b"value"


def test_what_was_sealed_before_there_was_a_key_file_opens_with_one(tmp_path: Path) -> None:
    assert Vault(SECRET, key_file(tmp_path, HEX)).open(Vault(SECRET).seal("value")) == "value"


def test_a_new_first_key_is_taken_up_while_the_platform_runs_and_resealing_makes_the_old_one_needless(tmp_path: Path) -> None:
    vault = Vault(SECRET, key_file(tmp_path, HEX))
    sealed = vault.seal("value")
    key_file(tmp_path, FERNET + b"\n" + HEX)
    assert vault.open(sealed) == "value"
    again = vault.reseal(sealed)
    key_file(tmp_path, FERNET)
    assert vault.open(again) == "value"
    with pytest.raises(errors.Conflict, match="set the value again"):
        vault.open(sealed)
    with pytest.raises(errors.Conflict):
        vault.reseal(sealed)


def test_a_key_file_that_became_unusable_leaves_the_keys_that_were_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vault = Vault(SECRET, key_file(tmp_path, HEX))
    sealed = vault.seal("value")
    key_file(tmp_path, b"short")
    assert vault.open(sealed) == "value"
    (tmp_path / "keys").unlink()
    assert vault.open(vault.seal("more")) == "more"
    assert "keys known before" in caplog.text and "short" not in caplog.text


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [(HEX, 0o640, "chmod 600"), (HEX, 0o604, "chmod 600"), (b"too short", 0o600, "32 random bytes"), (b"", 0o600, "32 random bytes")],
)
def test_a_key_file_that_others_may_read_or_that_holds_too_little_is_refused(tmp_path: Path, content: bytes, mode: int, told: str) -> None:
    with pytest.raises(KeyFileUnusable, match=told) as caught:
        Vault(SECRET, key_file(tmp_path, content, mode))
    assert not content or content.decode() not in str(caught.value)


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnusable, match="cannot be read"):
        Vault(SECRET, tmp_path / "none")
