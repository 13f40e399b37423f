"""What holds for the SQL stores alone: the schema, durability, and what happens when the database does not answer."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import alembic.autogenerate
import alembic.command
import alembic.migration
import psycopg
import pytest
import sqlalchemy as sa

from cluster import errors, records, usage_records
from cluster.store import MemoryStore, SqlStore, database, migrations, open_store, tables
from cluster.store.database import Database

ROOT = Path(__file__).parents[2]
RECORDS = {
    "endpoints": records.Endpoint,
    "revisions": records.Revision,
    "keys": records.Key,
    "replicas": records.Replica,
    "events": records.Event,
    "answers": records.Remembered,
    "models": records.Model,
    "model_versions": records.ModelVersion,
    "measurements": records.Measurement,
    "tenants": records.Tenant,
    "namespaces": records.Namespace,
    "users": records.User,
    "audit": records.Audit,
}
READ_BY_NAME = {
    "usage": usage_records.UsageRow,
    "usage_days": usage_records.UsageDay,
    "capacity_days": usage_records.CapacityDay,
}
WRITER = """
import itertools, sys
from cluster import records
from cluster.store import open_store
store, prefix = open_store(sys.argv[1]), sys.argv[2]
for number in itertools.count():
    name = f"{prefix}-{number}"
    key = records.Key(name, name, "e", "acme", endpoint_id=name)
    endpoint = records.Endpoint(name, "acme", name, {"n": number}, 0)
    store.create_endpoint(endpoint, {"n": number}, key, {"A": "x"}, [records.Event(name, 1.0, "new")])
    print(name, flush=True)
"""
MIGRATOR = """
import sys
from cluster.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
store.migrate()
store.add_namespace("acme")
store.close()
"""


def _started(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _endpoint(name: str = "demo-chat") -> records.Endpoint:
    return records.Endpoint(name, "acme", name, {}, 0)


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "moorage.db"


@pytest.fixture
def sqlite_store(sqlite_file: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{sqlite_file}")
    store.migrate()
    yield store
    store.close()


# URLs


def test_the_url_chooses_the_store(tmp_path: Path) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    assert isinstance(open_store(f"sqlite:///{tmp_path / 'a.db'}"), SqlStore)
    for url in ("postgresql://ann@db/moorage", "postgres://ann@db/moorage", "postgresql+psycopg://ann@db/moorage"):
        assert isinstance(open_store(url), SqlStore)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://ann:hunter2@db/x", "postgresql+psycopg2://db/x", "hunter2", ""]
)
def test_another_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


# Schema


def test_migrations_and_tables_agree(database_url: str) -> None:
    store = SqlStore(database_url)
    store.migrate()
    opened = Database(database_url)
    with opened.read() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = alembic.migration.MigrationContext.configure(connection, opts=options)
        assert alembic.autogenerate.compare_metadata(context, tables.metadata) == []
        found = {table: [column["name"] for column in sa.inspect(connection).get_columns(table)] for table in tables.metadata.tables}
    opened.close()
    store.close()
    assert found == {name: [column.name for column in table.columns] for name, table in tables.metadata.tables.items()}


def test_columns_stand_in_the_order_of_the_records_fields() -> None:
    for name, record in RECORDS.items():
        assert [column.name for column in tables.metadata.tables[name].columns] == [field.name for field in dataclasses.fields(record)]
    for name, record in READ_BY_NAME.items():
        assert {column.name for column in tables.metadata.tables[name].columns} == {field.name for field in dataclasses.fields(record)}


def test_migrating_again_keeps_everything(database_url: str) -> None:
    for expected in ([], ["acme"]):
        store = SqlStore(database_url)
        store.migrate()
        assert [one.name for one in store.namespaces()] == expected
        store.add_namespace("acme")
        store.close()


def test_what_was_there_before_tenants_gets_them(database_url: str) -> None:
    opened = Database(database_url)
    with opened.write() as connection:
        alembic.command.upgrade(migrations.configuration(connection), "0003_limits")
        for name in ("admin", "team"):
            connection.execute(sa.text(f"INSERT INTO namespaces (name) VALUES ('{name}')"))
        key = "INSERT INTO keys (id, digest, kind, namespace, description, first, owner, status, requests_per_minute, concurrency, "
        key += "created_at, updated_at, role) VALUES (:id, :id, :kind, :namespace, '', :no, :owner, 'active', 0, 0, :at, 0, :role)"
        rows = [
            ("k1", "p", "team", "ann", 2.0),
            ("k2", "p", "admin", "ann", 3.0),
            ("k3", "p", "team", "", 4.0),
            ("k4", "e", "team", "x", 5.0),
        ]
        for identity, kind, namespace, owner, at in rows:
            role = "" if kind == "e" else "operator" if namespace == "admin" else "admin"
            values = {"id": identity, "kind": kind, "namespace": namespace, "owner": owner, "at": at, "role": role, "no": False}
            connection.execute(sa.text(key), values)
        connection.execute(sa.text(key), {**values, "id": "k5", "kind": "p", "namespace": "lost", "owner": "tom", "role": "admin"})
    opened.close()
    store = SqlStore(database_url)
    store.migrate()
    assert [(one.name, one.tenant) for one in store.namespaces()] == [(name, name) for name in ("admin", "lost", "team")]
    assert [one.name for one in store.tenants()] == ["admin", "lost", "team"]
    users = {one.name: (one.tenant, one.namespace, one.role, one.namespaces, one.active) for one in store.users()}
    assert users == {
        "ann": ("admin", "admin", "operator", (), True),
        "ann-team": ("team", "team", "admin", (), True),
        "team": ("team", "team", "admin", (), True),
        "tom": ("lost", "lost", "admin", (), True),
    }
    owners = {one.id: one.owner for one in store.keys(namespace=None)}
    assert owners == {"k1": "ann-team", "k2": "ann", "k3": "team", "k4": "x", "k5": "tom"}
    store.close()


def test_endpoints_from_before_first_revisions_get_them(database_url: str) -> None:
    opened = Database(database_url)
    with opened.write() as connection:
        alembic.command.upgrade(migrations.configuration(connection), "0007_integrations")
        row = "INSERT INTO endpoints (id, namespace, name, spec, target, desired, awake, generation, source, created_at, updated_at, "
        row += "created_by, updated_by, restarts) VALUES (:id, 'acme', :id, '{}', 4, 'running', :yes, 1, 'api', 0, 0, '', '', 0)"
        for identity in ("e1", "e2"):
            connection.execute(sa.text(row), {"id": identity, "yes": True})
        revision = "INSERT INTO revisions (endpoint_id, number, fields, created_at, created_by, reason, message) "
        for number in (4, 3):
            connection.execute(sa.text(f"{revision} VALUES ('e1', {number}, '{{}}', 0, '', '', '')"))
        connection.execute(sa.text("INSERT INTO names (namespace, name, last_revision) VALUES ('acme', 'e1', 4)"))
    opened.close()
    store = SqlStore(database_url)
    store.migrate()
    assert {row.id: row.first_revision for row in store.endpoints()} == {"e1": 3, "e2": 0}
    changed = store.update_endpoint("e1", {}, fields={})
    assert (changed.target, changed.first_revision) == (5, 3)
    store.close()


def test_managers_that_start_together_all_migrate(database_url: str) -> None:
    managers = [_started(MIGRATOR, database_url) for _ in range(3)]
    for manager in managers:
        assert manager.stdout is not None and manager.stdout.readline() == "ready\n"
    for manager in managers:
        assert manager.stdin is not None
        manager.stdin.write("go\n")
        manager.stdin.flush()
    said = [manager.communicate(timeout=60)[1] for manager in managers]
    assert [manager.returncode for manager in managers] == [0, 0, 0], said
    store = SqlStore(database_url)
    assert [one.name for one in store.namespaces()] == ["acme"]
    store.close()


def test_a_new_sqlite_file_is_in_wal_mode_before_anyone_can_open_it(sqlite_file: Path) -> None:
    SqlStore(f"sqlite:///{sqlite_file}").close()
    assert sqlite_file.read_bytes()[18:20] == b"\x02\x02"  # the header's word for WAL
    assert list(sqlite_file.parent.iterdir()) == [sqlite_file]


def test_a_schema_newer_than_the_code_is_refused_in_words(database_url: str) -> None:
    store = SqlStore(database_url)
    store.migrate()
    opened = Database(database_url)
    with opened.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    with pytest.raises(errors.Conflict, match="newer version of Moorage"):
        store.migrate()
    store.close()


# Durability


def test_no_acknowledged_write_is_lost_by_kill_9_and_none_is_stored_in_part(sqlite_store: SqlStore, sqlite_file: Path) -> None:
    acknowledged: list[str] = []
    for attempt in range(5):
        writer = _started(WRITER, f"sqlite:///{sqlite_file}", f"run-{attempt}")
        assert writer.stdout is not None
        for _ in range(1 + attempt * 7):
            acknowledged.append(writer.stdout.readline().strip())
        writer.send_signal(signal.SIGKILL)
        acknowledged.extend(writer.communicate(timeout=30)[0].split())
    stored = [endpoint.name for endpoint in sqlite_store.endpoints()]
    assert len(acknowledged) >= 75
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= 5  # a write that was done but not yet told, once per kill
    for name in stored:
        counts = [len(part(name)) for part in (sqlite_store.revisions, sqlite_store.secrets, sqlite_store.events)]
        assert [*counts, len(sqlite_store.keys(endpoint_id=name))] == [1, 1, 1, 1]


def test_a_sqlite_write_reaches_the_disk_before_it_is_acknowledged(sqlite_file: Path) -> None:
    opened = Database(f"sqlite:///{sqlite_file}")
    with opened.write() as connection:
        settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
    opened.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_the_sqlite_files_are_their_owners_only(sqlite_store: SqlStore, sqlite_file: Path) -> None:
    sqlite_store.add_namespace("acme")
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in sqlite_file.parent.iterdir()}
    assert modes == {"moorage.db": 0o600, "moorage.db-wal": 0o600, "moorage.db-shm": 0o600}


# When the database does not answer


def test_a_locked_database_is_unavailable_to_writers_and_open_to_readers(
    sqlite_store: SqlStore, sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_store.add_namespace("acme")
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
    impatient = SqlStore(f"sqlite:///{sqlite_file}")
    other = sqlite3.connect(sqlite_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.Unavailable) as caught:
        impatient.add_namespace("zeta")
    assert caught.value.retry_after is not None
    assert [one.name for one in impatient.namespaces()] == ["acme"]
    other.execute("ROLLBACK")
    impatient.add_namespace("zeta")
    assert [one.name for one in impatient.namespaces()] == ["acme", "zeta"]
    other.close()
    impatient.close()


def test_a_writer_that_holds_its_turn_too_long_makes_others_unavailable(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
    one = Database(f"sqlite:///{sqlite_file}")
    with one.write(), pytest.raises(errors.Unavailable), one.write():
        pytest.fail("two writers at once")
    with one.write() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    one.close()


def test_a_damaged_file_is_unavailable(sqlite_file: Path) -> None:
    sqlite_file.parent.mkdir()
    sqlite_file.write_bytes(os.urandom(8192))
    store = SqlStore(f"sqlite:///{sqlite_file}")
    for use in (store.migrate, store.endpoints):
        with pytest.raises(errors.Unavailable):
            use()
    store.close()


def test_a_mistake_of_ours_is_not_called_an_outage(database_url: str) -> None:
    store = SqlStore(database_url)
    store.migrate()
    store.create_endpoint(_endpoint(), {}, None, {})
    with pytest.raises(sa.exc.CompileError):
        store.update_endpoint("demo-chat", {"no such column": 1})
    assert store.endpoint("acme", "demo-chat").generation == 1
    store.close()


def test_a_server_that_cannot_be_reached_is_unavailable_and_its_password_stays_secret(new_url: Callable[[str], str]) -> None:
    url = sa.make_url(new_url("postgresql"))
    for wrong in (url.set(port=1), url.set(password="hunter2"), url.set(database="no-such-database")):
        store = SqlStore(wrong.render_as_string(hide_password=False))
        with pytest.raises(errors.Unavailable) as caught:
            store.endpoints()
        shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__cause__}"
        assert str(wrong.password) not in shown
        store.close()


def test_a_failed_statement_does_not_show_the_values_it_was_given(sqlite_store: SqlStore) -> None:
    sqlite_store.create_endpoint(_endpoint(), {}, records.Key("k", "digest-of-it", "e", "acme"), {})
    with pytest.raises(errors.AlreadyExists) as caught:
        sqlite_store.add_key(records.Key("k2", "digest-of-it", "e", "acme"))
    assert "digest-of-it" not in f"{caught.value!r} {caught.value.__cause__}"


def test_connections_that_the_server_closed_are_replaced(new_url: Callable[[str], str]) -> None:
    url = new_url("postgresql")
    store = SqlStore(url)
    store.migrate()
    with psycopg.connect(url, autocommit=True) as other:
        mine = "datname = current_database() AND pid <> pg_backend_pid()"
        closed = other.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE {mine}".encode()).fetchone()
    assert closed is not None and closed[0] >= 1
    store.add_namespace("acme")
    assert [one.name for one in store.namespaces()] == ["acme"]
    store.close()


def test_a_lock_held_on_the_server_makes_writers_unavailable(new_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    url = new_url("postgresql")
    monkeypatch.setitem(database.POSTGRESQL_OPTIONS, "options", "-c lock_timeout=200ms")
    store = SqlStore(url)
    store.migrate()
    store.create_endpoint(_endpoint(), {}, None, {})
    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM endpoints FOR UPDATE")
        with pytest.raises(errors.Unavailable):
            store.update_endpoint("demo-chat", {"restarts": 1})
    assert store.update_endpoint("demo-chat", {"restarts": 1}).generation == 2
    store.close()
