"""What every store promises of the audit log, and of the transaction that a change and its row share."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cluster import audit, errors, records
from cluster.actor import Actor
from cluster.cli import main as cli
from cluster.store import Store, open_store, tables
from cluster.store.audit_store import AuditFilter
from cluster.store.database import Database

ROOT = Path(__file__).parents[2]
SECRET = b"s" * 32
ANN = Actor("ann", "acme", frozenset({"acme"}), "key-1", tenant="acme", source="192.0.2.7", request_id="r-1")
WRITER = """
import sys
from pathlib import Path
from cluster import actor, audit, records
from cluster.store import open_store
store = open_store(sys.argv[1])
log = audit.AuditLog(store, b"s" * 32, Path(sys.argv[2]))
ann = actor.Actor("ann", "acme", frozenset())
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[4]}-{number}"
    with store.from_first_write(lambda: None, lambda: log.append(ann, "model.create", name, {})):
        store.add_model_version(records.ModelVersion("acme", name, 0, "org/model"))
    print(name, flush=True)
"""


@pytest.fixture
def log(store: Store, tmp_path: Path) -> audit.AuditLog:
    return audit.AuditLog(store, SECRET, tmp_path)


def rows(store: Store, **wanted: Any) -> list[str]:
    return [row.resource for row in store.audit(AuditFilter(**wanted))]


def make(store: Store, name: str) -> None:
    store.add_model_version(records.ModelVersion("acme", name, 0, "org/model"))


def made(store: Store) -> list[str]:
    return [row.name for row in store.models("acme")]


def _writer(url: str, folder: Path, number: int, prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(folder), str(number), prefix], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_rows_are_numbered_and_chained_and_read_back_as_they_were_written(store: Store, log: audit.AuditLog) -> None:
    for number in range(3):
        log.append(ANN, "endpoint.update", f"acme/e{number}", {"changed": {"description": ["a", 'ü"\0\ud800']}}, namespace="acme")
    found = store.audit_after(0, 10)
    assert [row.seq for row in found] == [1, 2, 3]
    assert ["", *(row.hash for row in found)][:3] == [row.previous for row in found]
    assert len({row.hash for row in found}) == 3 and all(row.hash == log.seal(row) for row in found)
    assert store.audit(AuditFilter()) == found[::-1]
    assert json.loads(found[0].detail)["changed"]["description"][0] == "a"
    assert log.verify() == audit.Verdict(3, found[-1].hash)


def test_rows_are_found_by_what_they_say(store: Store, log: audit.AuditLog) -> None:
    log.append(ANN, "endpoint.update", "acme/e1", {}, namespace="acme")
    log.append(
        dataclasses.replace(ANN, name="ben", key_id="k", tenant="zeta"), "key.revoke", "acme/e1/k", {}, outcome="refused", status=403
    )
    log.append(ANN, "endpoint.delete", "acme/e10", {}, namespace="acme")
    assert rows(store) == ["acme/e10", "acme/e1/k", "acme/e1"]
    assert rows(store, tenant="acme") == ["acme/e10", "acme/e1"] == rows(store, action="endpoint.") == rows(store, namespace="acme")
    assert rows(store, resource="acme/e1") == ["acme/e1/k", "acme/e1"] and rows(store, resource="acme/e") == []
    assert rows(store, actor="ben") == rows(store, key_id="k") == rows(store, outcome="refused") == rows(store, action="key.revoke")
    assert rows(store, since=0.0, until=1.0) == [] and len(rows(store, since=1.0)) == 3
    assert [row.seq for row in store.audit(AuditFilter(), before=3, limit=1)] == [2]


def test_a_change_and_its_row_are_kept_or_undone_as_one(store: Store, log: audit.AuditLog) -> None:
    def change(fails: bool) -> None:
        with store.from_first_write(lambda: None, lambda: log.append(ANN, "model.create", "new", {})):
            make(store, "new")
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change(True)
    assert made(store) == [] and store.audit(AuditFilter()) == []
    change(False)
    assert made(store) == ["new"] and rows(store) == ["new"]


def test_a_row_that_cannot_be_written_undoes_the_change(store: Store) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), store.from_first_write(lambda: None, fail):
        make(store, "new")
    assert made(store) == []


def test_a_block_that_writes_nothing_has_no_end_to_record(store: Store) -> None:
    told: list[str] = []
    with store.from_first_write(lambda: None, lambda: told.append("ended")):
        made(store)
    assert told == []


def test_what_was_there_before_the_first_write_is_seen_in_the_transaction(store: Store) -> None:
    before: list[str] = []
    make(store, "old")
    with store.from_first_write(lambda: before.extend(made(store)), lambda: None):
        make(store, "new")
        assert made(store) == ["new", "old"]
        with store.together():  # as an idempotent answer is remembered
            make(store, "newer")
        assert "newer" in made(store)
    assert before == ["old"] and made(store) == ["new", "newer", "old"]


def test_a_write_that_is_refused_is_undone_alone_and_the_block_goes_on(store: Store) -> None:
    key = records.Key("k1", "digest", "p", "acme")
    store.add_key(key)
    with store.from_first_write(lambda: None, lambda: None):
        for _ in range(2):
            with pytest.raises(errors.AlreadyExists):
                store.add_key(key)
            make(store, "new")
    assert made(store) == ["new"]


def test_what_waits_for_a_transaction_is_done_after_it_and_never_when_it_is_undone(store: Store) -> None:
    told: list[object] = []

    def look() -> None:  # from another thread: what is durable
        thread = threading.Thread(target=lambda: told.append(made(store)))
        thread.start()
        thread.join()

    def both(fails: bool) -> None:
        with store.from_first_write(lambda: None, lambda: None):
            make(store, "new")
            store.afterwards(look)
            assert told == []
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        both(True)
    assert told == []
    both(False)
    assert told == [["new"]]
    store.afterwards(look)
    assert len(told) == 2


def test_threads_that_append_at_once_make_one_chain(store: Store, log: audit.AuditLog) -> None:
    threads = [threading.Thread(target=lambda: [log.append(ANN, "endpoint.update", "e", {}) for _ in range(10)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.verify().rows == 80


def test_managers_that_append_at_once_make_one_chain(database_url: str, tmp_path: Path) -> None:
    store = open_store(database_url)
    store.migrate()
    writers = [_writer(database_url, tmp_path, 40, f"m{number}") for number in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    found = audit.AuditLog(store, SECRET, tmp_path).verify()
    assert (found.rows, found.problem, found.warning) == (80, "", "")
    store.close()
    for writer in writers:
        writer.communicate()


def test_a_killed_manager_leaves_as_many_rows_as_changes(database_url: str, tmp_path: Path) -> None:
    store = open_store(database_url)
    store.migrate()
    for kill in range(4):
        writer = _writer(database_url, tmp_path, 100_000, f"k{kill}")
        assert writer.stdout
        for _ in range(5 + 3 * kill):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        named = sorted(row.resource for row in store.audit_after(0, 100_000))
        assert named == made(store) and len(named) > kill
    assert audit.AuditLog(store, SECRET, tmp_path).verify().intact
    store.close()


TAMPERING: dict[str, tuple[Callable[[sa.Table], list[Any]], int, str]] = {
    "edited": (lambda log: [sa.update(log).where(log.c.seq == 3).values(actor="eve")], 3, "edited"),
    "detail edited": (lambda log: [sa.update(log).where(log.c.seq == 1).values(detail="{}")], 1, "edited"),
    "time moved": (lambda log: [sa.update(log).where(log.c.seq == 5).values(at=1.0)], 5, "edited"),
    "deleted": (lambda log: [sa.delete(log).where(log.c.seq == 2)], 2, "missing"),
    "first deleted": (lambda log: [sa.delete(log).where(log.c.seq == 1)], 1, "missing"),
    "deleted and renumbered": (
        lambda log: [
            sa.delete(log).where(log.c.seq == 2),
            *(sa.update(log).where(log.c.seq == seq).values(seq=seq - 1) for seq in range(3, 7)),
        ],
        2,
        "edited",
    ),
    "swapped": (
        lambda log: [sa.update(log).where(log.c.seq == old).values(seq=new) for old, new in ((3, 99), (4, 3), (99, 4))],
        3,
        "edited",
    ),
    "cut off": (lambda log: [sa.delete(log).where(log.c.seq > 4)], 5, "cut off"),
    "emptied": (lambda log: [sa.delete(log)], 1, "cut off"),
}


@pytest.mark.parametrize("tampering", TAMPERING.values(), ids=TAMPERING)
def test_whatever_is_done_to_rows_by_sql_is_noticed(
    database_url: str, tmp_path: Path, tampering: tuple[Callable[[sa.Table], list[Any]], int, str]
) -> None:
    statements, bad, why = tampering
    store = open_store(database_url)
    store.migrate()
    log = audit.AuditLog(store, SECRET, tmp_path)
    for number in range(6):
        log.append(ANN, "endpoint.update", f"acme/e{number}", {"changed": {"description": ["a", "b"]}})
    assert log.verify().intact
    database = Database(database_url)
    with database.write() as connection:
        for statement in statements(tables.audit):
            connection.execute(statement)
    database.close()
    found = log.verify()
    assert (found.intact, found.bad, found.rows) == (False, bad, bad - 1)
    assert why in found.problem
    store.close()


def test_a_row_made_under_another_secret_is_noticed(store: Store, log: audit.AuditLog, tmp_path: Path) -> None:
    log.append(ANN, "endpoint.update", "e", {})
    audit.AuditLog(store, b"x" * 32, tmp_path).append(ANN, "endpoint.update", "forged", {})
    assert log.verify().bad == 2


def test_a_log_that_was_cut_off_and_written_on_is_noticed(database_url: str, tmp_path: Path) -> None:
    store = open_store(database_url)
    store.migrate()
    log = audit.AuditLog(store, SECRET, tmp_path)
    for name in ("one", "two", "three"):
        log.append(ANN, "endpoint.update", name, {})
    database = Database(database_url)
    with database.write() as connection:
        connection.execute(sa.delete(tables.audit).where(tables.audit.c.seq > 1))
    database.close()
    log.append(ANN, "endpoint.update", "instead", {})
    assert "cut off" in log.verify().problem
    log.append(ANN, "endpoint.update", "and on", {})
    assert (log.verify().bad, log.verify().problem) == (3, "Row 3 is not the one that was written as such.")
    store.close()


def test_a_missing_note_of_the_newest_row_is_a_warning_and_a_broken_one_a_problem(
    store: Store, log: audit.AuditLog, tmp_path: Path
) -> None:
    log.append(ANN, "endpoint.update", "e", {})
    note = tmp_path / audit.HEAD
    assert log.verify().intact  # waits for the note
    assert json.loads(note.read_text())["seq"] == 1 and note.stat().st_mode & 0o077 == 0
    note.write_text("{")
    assert "cannot be read" in log.verify().problem
    note.unlink()
    assert log.verify().intact and "cut-off end" in log.verify().warning


def test_the_command_checks_the_database_without_a_platform(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    monkeypatch.setenv("MOORAGE_HOME", str(tmp_path))
    monkeypatch.setenv("MOORAGE_DATABASE_URL", database_url)
    store = open_store(database_url)
    store.migrate()
    audit.AuditLog(store, SECRET, tmp_path).append(ANN, "endpoint.update", "e", {})
    newest = store.audit(AuditFilter())[0].hash
    store.close()

    def run() -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            cli.app(["audit", "verify"])
        return ended.value.code, capsys.readouterr().out

    code, told = run()
    assert code == 0 and "1 rows" in told and newest in told
    (tmp_path / "secret").write_bytes(b"x" * 32)
    code, told = run()
    assert code == 1 and "NOT whole. Row 1 was edited" in told
