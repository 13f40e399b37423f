"""One SQL database: connections, transactions, and the translation of its errors. What is asked of it stands in `sql`.

SQLite is set up so that an acknowledged write survives kill -9 and a power cut (WAL, synchronous=FULL).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cluster import errors

LOCK_WAIT_S = 10
"""How long a writer waits for another one before it is told Unavailable."""
CACHE_KIB = 128
"""Of SQLite, for each of a dozen connections: the kernel keeps the file's pages once for all of them."""
WORD = 32
"""Longest text that is kept once for all rows."""
FOREIGN_KEY = {"23503", "SQLITE_CONSTRAINT_FOREIGNKEY"}
POSTGRESQL_OPTIONS: dict[str, Any] = {
    # No wait without a bound: neither for a connection, nor for a peer that has gone silent, nor for a lock.
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "options": f"-c lock_timeout={LOCK_WAIT_S}s -c idle_in_transaction_session_timeout=60s",
}


class _Mine(threading.local):
    """What one thread is in the middle of."""

    connection: sa.Connection | None = None
    """The transaction that its reads and writes are part of."""
    begin: Callable[[], None] | None = None
    """Opens that transaction; to be called before the first write."""
    wrote = False

    def __init__(self) -> None:
        self.afterwards: list[Callable[[], None]] = []


class Database:
    """Transactions on `url` from any thread. Connects at the first one."""

    def __init__(self, url: str) -> None:
        """A SQLite file is made if absent, readable by its owner only."""
        self._url = _parsed(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = self._sqlite_engine() if self.is_sqlite else self._postgresql_engine()
        self._writer = self._engine.execution_options(writes=True)
        # SQLite has one writer. Threads of this process take turns here, fairly, instead of polling the file's lock.
        self._turn = threading.Lock() if self.is_sqlite else None
        self._mine = _Mine()

    @staticmethod
    def supports(url: str) -> bool:
        """Whether `url` names a SQLite file or a PostgreSQL database."""
        try:
            parsed = _parsed(url)
        except sa.exc.ArgumentError:
            return False
        if parsed.get_backend_name() == "sqlite":
            return parsed.database not in (None, "", ":memory:")
        return parsed.drivername == "postgresql+psycopg"

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads. Raises Unavailable when the database does not answer."""
        with _translated(""), self._present() or self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, taken: str = "") -> Iterator[sa.Connection]:
        """A transaction that is durable when the block has ended, and undone when it raises.

        Raises AlreadyExists (with the message `taken`) when a unique constraint refuses, NotFound when a referenced
        endpoint is gone, Unavailable when the database does not answer or stays locked for LOCK_WAIT_S.
        """
        if self._begun():
            with self._savepoint(taken) as connection:
                yield connection
            self._mine.wrote = True
            return
        with _translated(taken), self._my_turn(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What this thread reads and writes inside is one transaction, undone as a whole when the block raises."""
        if self._begun():
            with self._savepoint(""):
                yield
            return
        mine = self._mine
        with self._kept(), self.write() as connection:
            mine.connection = connection
            try:
                yield
            finally:
                mine.connection = None

    @contextlib.contextmanager
    def from_first_write(self, began: Callable[[], None], ended: Callable[[], None]) -> Iterator[None]:
        """As `together`, but the transaction begins at the first write: see `cluster.store.base.Store`."""
        mine = self._mine
        with self._kept(), _translated(""), contextlib.ExitStack() as transaction:

            def begin() -> None:
                transaction.enter_context(self._my_turn())
                mine.connection = transaction.enter_context(self._writer.begin())
                began()

            mine.begin, mine.wrote = begin, False
            try:
                yield
                if mine.wrote:
                    ended()
            finally:
                mine.begin, mine.connection = None, None

    def afterwards(self, act: Callable[[], None]) -> None:
        """Call `act` once this thread's transaction is durable, never when it is undone; at once when it is in none."""
        if self._mine.connection is None:
            act()
        else:
            self._mine.afterwards.append(act)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Does what is to be done afterwards, if the block does not raise."""
        waiting: list[Callable[[], None]] = []
        self._mine.afterwards = waiting
        yield
        self._mine.afterwards = []
        for act in waiting:
            act()

    def _begun(self) -> bool:
        """Whether this thread is in a transaction, which is opened now if that was to be done at the first write."""
        mine = self._mine
        if mine.connection is None and mine.begin is not None:
            with _translated(""):
                mine.begin()
        return mine.connection is not None

    @contextlib.contextmanager
    def _savepoint(self, taken: str) -> Iterator[sa.Connection]:
        """A part of this thread's transaction that is undone alone when the block raises."""
        mine = self._mine
        connection, wrote = mine.connection, mine.wrote
        if connection is None:
            raise RuntimeError("there is no transaction to be part of")
        raised = True
        try:
            with _translated(taken), connection.begin_nested():
                yield connection
            raised = False
        finally:
            if raised:
                mine.wrote = wrote

    def _present(self) -> contextlib.AbstractContextManager[sa.Connection] | None:
        """The transaction that this thread is in, which its opener ends."""
        return None if self._mine.connection is None else contextlib.nullcontext(self._mine.connection)

    def close(self) -> None:
        """Give connections back."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=LOCK_WAIT_S):
            raise errors.Unavailable("The database is busy: try again.", retry_after=LOCK_WAIT_S)
        try:
            yield
        finally:
            self._turn.release()

    def _sqlite_engine(self) -> sa.Engine:
        _make_sqlite_file(Path(self._url.database or ""))
        engine = sa.create_engine(self._url, hide_parameters=True, json_deserializer=_read_json, connect_args={"timeout": LOCK_WAIT_S})
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _postgresql_engine(self) -> sa.Engine:
        options = {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in self._url.query}
        return sa.create_engine(
            self._url,
            hide_parameters=True,
            json_deserializer=_read_json,
            pool_pre_ping=True,
            pool_timeout=LOCK_WAIT_S,
            connect_args=options,
        )


def _read_json(text: str) -> Any:
    """Names and short words of a thousand specs are mostly the same: each is kept once."""
    return json.loads(text, object_pairs_hook=_shared)


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(name): sys.intern(value) if isinstance(value, str) and len(value) <= WORD else value for name, value in pairs}


def _parsed(url: str) -> sa.URL:
    parsed = sa.make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername in ("postgresql", "postgres") else parsed


def _make_sqlite_file(path: Path) -> None:
    """An empty database in WAL mode, if there is none: put in place whole, because the switch to WAL does not wait for others.

    An existing file is not touched: closing it would drop the locks that SQLite holds on it elsewhere in this process.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"cache_size=-{CACHE_KIB}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock at once: one that began as a reader could not wait for it (SQLITE_BUSY, whatever the timeout).
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextlib.contextmanager
def _translated(taken: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as exc:
        if _violated(exc) in FOREIGN_KEY:
            raise errors.NotFound("The endpoint is gone.") from exc
        raise errors.AlreadyExists(taken) from exc
    except (sa.exc.DataError, sa.exc.ProgrammingError):
        raise  # a mistake of ours, not a state of the database
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as exc:
        raise errors.Unavailable("The database does not answer: try again.", retry_after=1) from exc


def _violated(exc: sa.exc.IntegrityError) -> str | None:
    """PostgreSQL's SQLSTATE or SQLite's name of the error."""
    return getattr(exc.orig, "sqlstate", None) or getattr(exc.orig, "sqlite_errorname", None)
