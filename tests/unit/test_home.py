"""The platform's folder."""

import json
import os
import stat

import pytest

from cluster import home
from cluster.settings import Settings


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(tmp_path):
    made = home.Home(tmp_path / "home")
    home.prepare(made)
    return made


def test_secrets_are_made_once_and_closed_to_others(place):
    first = place.secret.read_text(), place.ray_token.read_text()
    assert all(len(bytes.fromhex(text)) == 32 for text in first) and first[0] != first[1]
    home.prepare(place)
    assert (place.secret.read_text(), place.ray_token.read_text()) == first
    assert mode(place.folder) == 0o700
    assert mode(place.secret) == mode(place.ray_token) == 0o600


def test_a_secret_that_others_could_read_is_closed(place):
    place.secret.chmod(0o644)
    home.prepare(place)
    assert mode(place.secret) == 0o600


def test_an_empty_secret_is_not_replaced_silently(place):
    home.prepare(place)
    place.secret.write_text("")
    with pytest.raises(home.HomeUnusable, match="backup"):
        home.prepare(place)


def test_credentials_are_read_back_as_written_and_their_token_is_not_shown(place):
    given = home.Credentials("http://127.0.0.1:8000", "moor_p_secret", "admin")
    home.write_credentials(place, given)
    assert home.read_credentials(place) == given
    assert mode(place.credentials) == 0o600
    assert json.loads(place.credentials.read_text()) == {"url": given.url, "token": given.token, "namespace": "admin"}
    assert "moor_p_secret" not in repr(given)
    assert not [name for name in os.listdir(place.folder) if name.startswith(".credentials")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "x"}', "null"])
def test_unusable_credentials_count_as_none(place, text):
    place.credentials.write_text(text)
    assert home.read_credentials(place) is None


def test_a_folder_that_cannot_be_made_is_said_with_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(home.HomeUnusable, match="set MOORAGE_HOME"):
        home.prepare(home.Home(tmp_path / "file" / "home"))


def test_rays_folder_moves_when_the_path_is_too_long_for_its_sockets(tmp_path):
    short = Settings(home="/srv/moorage")
    assert str(home.ray_temp(short)) == "/srv/moorage/ray"
    long = Settings(home=tmp_path / ("long" * 10))
    moved = home.ray_temp(long)
    assert len(os.fsencode(moved)) <= home.RAY_TEMP_LIMIT and home.of(long).mark in str(moved)
    assert home.ray_temp(Settings(home=long.home, ray_temp="/x")) == home.Path("/x")


def test_two_homes_have_two_marks(tmp_path):
    assert home.of(Settings(home=tmp_path / "a")).mark != home.of(Settings(home=tmp_path / "b")).mark
