"""The operator's key, made by `moorage up`, on a real SQLite file."""

import pytest

from cluster import home, keys, platform, records, store
from cluster.settings import Settings


@pytest.fixture
def settings(tmp_path):
    made = Settings(home=tmp_path)
    home.prepare(home.of(made))
    return made


def ensure(settings):
    return platform.ensure_admin(settings, home.of(settings))


def stored(settings):
    database = store.open_store(settings.database)
    try:
        return database.keys(kind=keys.PLATFORM), [row.name for row in database.namespaces()], database.users()
    finally:
        database.close()


def test_the_first_up_makes_namespace_key_and_credentials(settings):
    made = ensure(settings)
    rows, namespaces, users = stored(settings)
    assert [(row.description, row.owner, row.namespace, row.digest) for row in rows] == [
        ("moorage up", "admin", "admin", keys.digest(made.token))
    ]
    assert "admin" in namespaces
    assert [(user.name, user.tenant, user.role, user.active) for user in users] == [("admin", "admin", "operator", True)]
    assert home.read_credentials(home.of(settings)) == made
    assert keys.key_id(made.token) == rows[0].id


def test_the_next_up_keeps_the_key(settings):
    assert ensure(settings) == ensure(settings)
    assert len(stored(settings)[0]) == 1


def test_another_address_is_written_to_the_credentials_beside_the_same_key(settings):
    first = ensure(settings)
    moved = ensure(settings.model_copy(update={"port": 9999}))
    assert moved.token == first.token and moved.url == "http://127.0.0.1:9999"
    assert home.read_credentials(home.of(settings)) == moved


def test_lost_credentials_get_a_new_key(settings):
    first = ensure(settings)
    home.of(settings).credentials.unlink()
    assert ensure(settings).token != first.token
    assert len(stored(settings)[0]) == 2


def test_a_lost_database_gets_a_new_key(settings):
    first = ensure(settings)
    for file in settings.home.glob("moorage.db*"):
        file.unlink()
    again = ensure(settings)
    assert again.token != first.token
    assert [row.digest for row in stored(settings)[0]] == [keys.digest(again.token)]


def test_a_revoked_key_is_replaced(settings):
    first = ensure(settings)
    database = store.open_store(settings.database)
    database.update_key(keys.key_id(first.token), {"status": "revoked"})
    database.close()
    assert ensure(settings).token != first.token


def test_an_expired_key_is_replaced(settings):
    first = ensure(settings)
    database = store.open_store(settings.database)
    database.update_key(keys.key_id(first.token), {"expires_at": 1.0})
    database.close()
    assert ensure(settings).token != first.token


def test_an_operator_whom_others_have_deactivated_stays_so(settings):
    ensure(settings)
    database = store.open_store(settings.database)
    database.add_user(records.User("root", "admin", "admin", role="operator"))
    database.update_user("admin", {"active": False, "updated_at": 1.0})
    database.close()
    ensure(settings)
    assert [(user.name, user.active) for user in stored(settings)[2]] == [("admin", False), ("root", True)]


def test_an_endpoints_key_in_the_credentials_does_not_do(settings):
    ensure(settings)
    other = keys.mint(keys.ENDPOINT)
    home.write_credentials(home.of(settings), home.Credentials(settings.url, other.key, "admin"))
    assert ensure(settings).token != other.key
